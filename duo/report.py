"""Results: what a run found, as JSON and as a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from safetensors.numpy import load_file, save_file

from duo.evaluate import Score, Sequences
from duo.files import replacing
from duo.intervals import Gap, mean_interval

SCHEMA = 1

Scores = dict[str, Score]
"""Scores by hold-out."""


@dataclass(frozen=True)
class Result:
    """Recipe, scores and provenance of one run."""

    recipe: str
    """Name of the recipe."""
    recipe_digest: str
    """Identity of the run."""
    router: str
    """Name of the router."""
    budget: dict[str, float]
    """Big and skip modules per token."""
    backbone: dict[str, Any]
    """Digest, parameters and training tokens of the backbone."""
    scores: Scores
    """The router's, on whole hold-outs; empty where the router searches and is scored on the subset alone."""
    baselines: dict[str, Scores]
    """Those of all-small, all-big, random and the best fixed pattern, on the same tokens."""
    subset: dict[str, Scores]
    """Every row, bounds included, on the subset that searches are scored on."""
    gap_closed: dict[str, Gap]
    """By hold-out, how much of the gap between the best fixed pattern and the oracle the router closes."""
    provenance: dict[str, Any]
    """Commit, versions, device, seed, seconds and command."""
    schema: int = SCHEMA
    """Version of this format."""

    def whole_rows(self) -> dict[str, Scores]:
        """The router (if it is scored on whole hold-outs) and its baselines, by name."""
        return ({self.router: self.scores} if self.scores else {}) | self.baselines

    def subset_rows(self) -> dict[str, Scores]:
        """Every row of the subset, by name."""
        return {self.router if name == "router" else name: scores for name, scores in self.subset.items()}

    def save(self, folder: Path) -> None:
        """Writes `sequences.safetensors` (losses per sequence, shares by place) and then `result.json`."""
        arrays = {
            f"{row}/{holdout}/{name}": np.ascontiguousarray(value)
            for row, scores in self._parts()
            for holdout, score in scores.items()
            for name, value in score.sequences._asdict().items()
        }
        with replacing(folder / "sequences.safetensors") as path:
            save_file(arrays, path)
        with replacing(folder / "result.json") as path:
            path.write_text(json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")

    def to_json(self) -> dict[str, Any]:
        """The content of `result.json`."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        values["scores"] = _json(self.scores)
        for part in ("baselines", "subset"):
            values[part] = {name: _json(scores) for name, scores in getattr(self, part).items()}
        values["gap_closed"] = {holdout: gap._asdict() for holdout, gap in self.gap_closed.items()}
        return {"schema": values.pop("schema"), **values}

    @classmethod
    def load(cls, folder: Path) -> Result:
        """Reads what `save` wrote.

        Raises:
            ValueError: a file is damaged, or of another version.
        """
        path = folder / "result.json"
        try:
            values, arrays = json.loads(path.read_text()), load_file(folder / "sequences.safetensors")
            if values.get("schema") != SCHEMA:
                raise ValueError(f"its schema is {values.get('schema')!r}, this duo writes {SCHEMA}")
            values["scores"] = _scores(values["scores"], arrays, "scores")
            for part in ("baselines", "subset"):
                values[part] = {name: _scores(row, arrays, f"{part}/{name}") for name, row in values[part].items()}
            values["gap_closed"] = {
                holdout: Gap(gap["value"], _pair(gap["interval"])) for holdout, gap in values["gap_closed"].items()
            }
            return cls(**values)
        except Exception as error:  # safetensors has exceptions of its own
            raise ValueError(f"{path} cannot be read ({error}): delete it to evaluate again") from error

    def _parts(self) -> Iterator[tuple[str, Scores]]:
        yield "scores", self.scores
        for part in ("baselines", "subset"):
            yield from ((f"{part}/{name}", scores) for name, scores in getattr(self, part).items())


def table(result: Result, holdout: str, subset: bool = False) -> Table:
    """One hold-out's rows, each compared with random routes of the same budget on the same tokens.

    Behind each mean stands half the width of its 95 % bootstrap interval over sequences.
    """
    rows = result.subset_rows() if subset else result.whole_rows()
    budget = f"{result.budget['big']:g} big and {result.budget['skip']:g} skipped layers a token"
    random = rows["random"][holdout]
    where = f"{'the subset of searches' if subset else 'whole hold-out'}, {random.tokens:,} tokens"
    view = Table(title=f"{holdout}: {budget}; {where}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    view.collapse_padding = True
    names = ("", "loss", "minus random", "perplexity", "bits/byte", "skip/small/big", "MFLOPs", "to budget", "deciding")
    for name in (*names, "promised") if subset else names:
        view.add_column(name, justify="right" if name else "left", no_wrap=True)
    for name, scores in rows.items():
        score = scores[holdout]
        difference_N = score.sequences.loss_N - random.sequences.loss_N
        difference = difference_N.sum() / random.tokens
        view.add_row(
            name,
            f"{score.loss:.4f} {_half(score.loss_interval)}",
            f"{difference:+.4f} {_half(mean_interval(difference_N, random.sequences.tokens_N))}",
            f"{score.perplexity:.1f}",
            "" if score.bits_per_byte is None else f"{score.bits_per_byte:.3f}",
            "/".join(f"{share:.2f}" for share in score.share.values()),
            f"{score.flops_per_token / 1e6:.3f}",
            f"{score.flops_per_token / score.budget_flops_per_token - 1:+.1%}" + (" " if score.within_budget else "!"),
            f"{score.deciding_flops_per_token / score.flops_per_token:.1%}",
            *([] if not subset else [""] if score.promised_loss is None else [f"{score.promised_loss:.4f}"]),
        )
    return view


def gap_line(result: Result, holdout: str) -> str:
    """The gap closed on one hold-out, in words."""
    value, interval = result.gap_closed[holdout]
    if value is None or interval is None:
        return f"{holdout}: there is no gap between the best fixed pattern and the oracle to close"
    return (
        f"{holdout}: {result.router} closes {value:.1%} [{interval[0]:.1%}, {interval[1]:.1%}] of the gap to the oracle"
    )


def _half(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"±{(interval[1] - interval[0]) / 2:.4f}"


def _json(scores: Scores) -> dict[str, Any]:
    return {holdout: score.to_json() for holdout, score in scores.items()}


def _scores(row: dict[str, Any], arrays: dict[str, np.ndarray], key: str) -> Scores:
    return {
        holdout: Score(
            **values | {"loss_interval": _pair(values["loss_interval"])},
            sequences=Sequences(*(arrays[f"{key}/{holdout}/{name}"] for name in Sequences._fields)),
        )
        for holdout, values in row.items()
    }


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])
