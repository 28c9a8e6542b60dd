"""Several finished runs as one comparison: rows of the same name told apart, all of them paired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from msgspec import structs

from duo.evaluation.comparison import Comparison, Groups, place_beside
from duo.evaluation.finished import Finished, check_tokens
from duo.evaluation.intervals import Estimate
from duo.evaluation.row import PARTS, Beside, Row, subtract

RECIPE = "compare"
"""What stands in the place of a recipe's name."""
NO_GAP = Beside({}, Estimate(None, None))


class _Owner(NamedTuple):
    """Where a row comes from: its run, and its name there."""

    run: Finished
    row: str


Owners = dict[str, _Owner]
"""Every row that is shown, by the name that tells it from all others."""


def compare_runs(runs: Sequence[Finished], minus: Sequence[str] = ()) -> Comparison:
    """The rows of all runs as one comparison, without provenance; a row that is the same in several stands there once.

    What is said of a row: its loss minus those of `minus`, and minus the row of its own name in the first run that has
    one; and how much it closes of the gap of its own run, else of one on the same backbone at the same budget.

    Args:
        runs: two or more, with the same groups (`duo.evaluation.finished.choose_groups`).
        minus: rows that are subtracted from all (default: the first run's own).

    Raises:
        ValueError: they were scored on different tokens, or there is no such row.
    """
    first = runs[0]
    for other in runs[1:]:
        check_tokens(first, other)
    owners = tell_apart(runs)
    others = [_find(owners, name) for name in minus] or [_name(owners, first, first.first)]
    groups = {name: _place(runs, owners, name, others) for name in first.groups}
    return Comparison(
        recipe=RECIPE,
        recipe_digest="",
        groups=groups,
        minus=others,
        gap=_ends(runs, owners, groups),
        foreign=sorted({holdout for run in runs for holdout in run.foreign}),
        provenance={},
    )


def _ends(runs: Sequence[Finished], owners: Owners, groups: Groups) -> list[str]:
    """The rows between which the first gap is, if any row closes some of one."""
    gaps = [beside.gap_from for rows in groups.values() for row in rows.values() for beside in row.beside.values()]
    if not any(gaps):
        return []
    return [next(_name(owners, run, run.gap[end]) for run in runs if run.gap[end] in _rows(run)) for end in (0, 1)]


def tell_apart(runs: Sequence[Finished]) -> Owners:
    """Every row once, by a name of its own: behind one that several runs have stands the run's label in brackets."""
    different: dict[str, list[Finished]] = {}
    for run in runs:
        for name in _rows(run):
            before = different.setdefault(name, [])
            if not any(_is_same(run, other, name) for other in before):
                before.append(run)
    owners = [_Owner(run, name) for run in runs for name in _rows(run) if run in different[name]]
    found = {_labelled(owner) if len(different[owner.row]) > 1 else owner.row: owner for owner in owners}
    return found if len(found) == len(owners) else {_labelled(owner): owner for owner in owners}


def pairs_of(comparison: Comparison, group: str, holdout: str) -> Iterator[tuple[str, str]]:
    """Each row that an earlier run has under the same name too, and what that is called; none that `minus` holds."""
    for name, row in comparison.groups[group].items():
        if holdout in row.beside:
            yield from ((name, other) for other in row.beside[holdout].minus if other not in comparison.minus)


def _rows(run: Finished) -> dict[str, Row]:
    """Those of a run's first group: the others have rows of the same names."""
    return next(iter(run.groups.values()))


def _labelled(owner: _Owner) -> str:
    return f"{owner.row} ({owner.run.label})"


def _is_same(run: Finished, other: Finished, name: str) -> bool:
    """Whether a row takes the same routes and loses the same in both runs, sequence by sequence."""
    return all(_are_alike(run.groups[group][name], other.groups[group][name]) for group in run.groups)


def _are_alike(row: Row, other: Row) -> bool:
    about = [(each.router, each.budget, each.digests, each.failed) for each in (row, other)]
    parts = [(getattr(row, part), getattr(other, part)) for part in PARTS]
    if about[0] != about[1] or any({*ours} != {*theirs} for ours, theirs in parts):
        return False
    pairs = [(ours[holdout].sequences, theirs[holdout].sequences) for ours, theirs in parts for holdout in ours]
    return all(
        np.array_equal(ours.loss_ZB, theirs.loss_ZB) and np.array_equal(ours.used_TLM, theirs.used_TLM)
        for ours, theirs in pairs
    )


def _find(owners: Owners, name: str) -> str:
    """The row that is called so, with its run's label, or without where there is no other of its name."""
    found = [name] if name in owners else [told for told, owner in owners.items() if owner.row == name]
    if len(found) != 1:
        raise ValueError(
            f"minus={name} is {len(found) or 'no'} row{'s' * (len(found) > 1)}: there are {', '.join(owners)}"
        )
    return found[0]


def _name(owners: Owners, run: Finished, row: str) -> str:
    """What a run's row is called; it may stand there as that of another run that has the same."""
    having = [name for name, owner in owners.items() if owner.row == row]
    own = [name for name in having if owners[name].run is run]
    return (own or [name for name in having if _is_same(run, owners[name].run, row)])[0]


def _place(runs: Sequence[Finished], owners: Owners, group: str, minus: list[str]) -> dict[str, Row]:
    """The rows of one group, each with what its place beside the others says of it."""
    rows = {name: owner.run.groups[group][owner.row] for name, owner in owners.items()}
    firsts: dict[str, str] = {}
    for name, owner in owners.items():
        firsts.setdefault(owner.row, name)
    placed = {}
    for name, row in rows.items():
        first = firsts[owners[name].row]
        others = [*minus, *([first] if first != name and first not in minus else [])]
        placed[name] = structs.replace(
            row,
            beside={
                holdout: structs.replace(
                    _close_gap(runs, owners, name, group, holdout),
                    minus={other: subtract(row, rows[other], holdout) for other in others if not rows[other].failed},
                )
                for holdout in row.subset
            },
        )
    return placed


def _close_gap(runs: Sequence[Finished], owners: Owners, name: str, group: str, holdout: str) -> Beside:
    """How much a row closes of the gap of its own run, else of one on the same backbone at the same budget."""
    owner = owners[name]
    row = owner.run.groups[group][owner.row]
    ends: list[Finished] = []
    for end in (0, 1):
        having = [run for run in runs if run is owner.run or _may_lend(run, group, row, end)]
        found = [run for run in having if (there := run.groups[group].get(run.gap[end])) and not there.failed]
        if not found:
            return NO_GAP
        ends.append(owner.run if owner.run in found else found[0])
    gap = {_name(owners, run, run.gap[end]): run.groups[group][run.gap[end]] for end, run in enumerate(ends)}
    begins = {_name(owners, ends[0], begin): ends[0].groups[group][begin] for begin in ends[0].begins}
    return place_beside(begins | gap | {name: row}, name, holdout, [*begins], [*gap], ends[0].foreign)


def _may_lend(run: Finished, group: str, row: Row, end: int) -> bool:
    """Whether an end of a run's gap stands on a row's backbone, at its budget."""
    there = run.groups[group].get(run.gap[end])
    return there is not None and there.digests == row.digests and there.budget == row.budget
