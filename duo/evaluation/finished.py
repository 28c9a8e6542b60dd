"""Finished runs as rows that may stand beside those of others: on the same tokens, in groups that all of them have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from duo.evaluation.comparison import Groups
from duo.evaluation.row import PARTS, Row
from duo.evaluation.score import Scores

MOST = 60  # characters of a setting that an error shows


class Finished(NamedTuple):
    """The rows of a finished run, or of an entry, and what says whether others may stand beside them."""

    label: str
    """Tells its rows from those of the same name in other runs."""
    where: str
    """Its folder or digest, as it was typed."""
    recipe: str
    """Name of its recipe."""
    digest: str
    """Identity of the run, or of the entry."""
    groups: Groups
    first: str
    """The row that the others are compared with, where this is the first run."""
    gap: tuple[str, str]
    """The rows between which gap closed is measured, the best fixed pattern and the oracle; empty: it has none."""
    begins: list[str]
    """Rows that the gap may begin at where the best fixed pattern was chosen on other domains."""
    foreign: list[str]
    """Hold-outs without a calibration set of their name."""
    data: dict[str, Any]
    """Settings that its tokens depend on: they say what differs where tokens do."""
    provenance: dict[str, Any]

    @property
    def scored(self) -> list[Row]:
        """Its rows that did not fail."""
        return [row for rows in self.groups.values() for row in rows.values() if not row.failed]


def check_tokens(one: Finished, other: Finished) -> None:
    """Raises ValueError where two runs were not scored on the same tokens, and says what differs."""
    ours, theirs = one.scored[0], other.scored[0]
    if ours.digests["tokens"] != theirs.digests["tokens"] or {*ours.subset} != {*theirs.subset}:
        said = _differing(one, other) or "its documents or its tokenizer were others"
        raise ValueError(
            f"{other.where} was scored on other tokens than {one.where} ({said}): run both on the same documents, or "
            "on one published backbone (leaderboard.backbone=DIGEST)"
        )
    for part in PARTS:
        rows = [row for run in (one, other) for row in run.scored if getattr(row, part)]
        for row in rows:
            _check_sequences(one, other, getattr(rows[0], part), getattr(row, part))


def _check_sequences(one: Finished, other: Finished, ours: Scores, theirs: Scores) -> None:
    """Raises ValueError where scores are of other sequences, or of more or less of them."""
    for holdout, score in ours.items():
        for field in ("sequence_B", "document_B", "tokens_B"):
            pair = [getattr(found.sequences, field) for found in (score, theirs[holdout])]
            if not np.array_equal(*pair):
                said = _differing(one, other) or f"{theirs[holdout].tokens:,} of {holdout}, not {score.tokens:,}"
                raise ValueError(
                    f"{other.where} was scored on another part of the tokens than {one.where} ({said}): run it again "
                    "with the same settings of data"
                )


def _differing(one: Finished, other: Finished) -> str:
    """The settings of data that are others in the second run, with both values."""
    keys = sorted(key for key in {*one.data} & {*other.data} if one.data[key] != other.data[key])
    return ", ".join(f"{key}={_short(other.data[key])}, not {_short(one.data[key])}" for key in keys)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= MOST else f"{text[:MOST]}..."


def choose_groups(runs: Sequence[Finished], group: str | None) -> list[Finished]:
    """The runs with the groups that all of them have.

    Args:
        group: the one group of those runs that have several.

    Raises:
        ValueError: there is none that all have, or none of that name.
    """
    if group is not None:
        runs = [run if len(run.groups) == 1 else _with_group(run, group) for run in runs]
    if all(len(run.groups) == 1 for run in runs):  # whatever each calls its own
        return [run._replace(groups={"": rows}) for run in runs for rows in run.groups.values()]
    shared = [name for name in runs[0].groups if all(name in run.groups for run in runs)]
    if not shared:
        there = (f"{run.where} has {', '.join(name or 'one group' for name in run.groups)}" for run in runs)
        raise ValueError(f"no group is in all runs ({'; '.join(there)}): choose one with group=NAME")
    return [run._replace(groups={name: run.groups[name] for name in shared}) for run in runs]


def _with_group(run: Finished, group: str) -> Finished:
    if group not in run.groups:
        raise ValueError(f"group={group}: {run.where} has {', '.join(run.groups)}")
    return run._replace(groups={group: run.groups[group]})
