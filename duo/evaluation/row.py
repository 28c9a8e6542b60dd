"""Rows: one router's scores on every hold-out, to and from files."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from duo.evaluation.bootstrap import Estimate, gap_between
from duo.evaluation.format import Scores, read_json, save_json, scores_json, scores_of
from duo.evaluation.score import Score, averaged, difference

PARTS = ("scores", "subset")


@dataclass(frozen=True)
class Row:
    """One router of a comparison: what it is, and its scores."""

    router: str
    """Name of the router."""
    options: dict[str, Any]
    """Its options."""
    budget: dict[str, float]
    """Big and skip modules per token."""
    digests: dict[str, str] = field(default_factory=dict)
    """Of the backbone's weights, and of the tokens (with their tokenizer)."""
    learned: bool = False
    """Whether the router was trained."""
    seeds: int = 1
    """Seeds that the scores are averaged over."""
    seed_losses: dict[str, list[float]] = field(default_factory=dict)
    """Loss of each seed, by hold-out."""
    scores: Scores = field(default_factory=dict)
    """On whole hold-outs; empty where the router searches and is scored on the subset alone."""
    subset: Scores = field(default_factory=dict)
    """On the subset that searches are scored on."""
    collapsed: dict[str, list[str]] = field(default_factory=dict)
    """By hold-out, layers at which a router that learned never or always uses a module."""
    failed: str | None = None
    """Why there are no scores."""

    @property
    def shown(self) -> Scores:
        """The scores on the most tokens there are."""
        return self.scores or self.subset

    @property
    def bound(self) -> bool:
        """Whether the router consulted the labels it was scored on."""
        return any(score.labels_consulted for score in self.subset.values())

    def to_json(self) -> dict[str, Any]:
        """The row as plain data."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        return values | {part: scores_json(values[part]) for part in PARTS}

    @classmethod
    def of(cls, values: dict[str, Any], arrays: dict[str, np.ndarray], prefix: str = "") -> Row:
        """A row from what `to_json` and `parts` gave."""
        return cls(**values | {part: scores_of(values[part], arrays, f"{prefix}{part}") for part in PARTS})

    def parts(self, prefix: str = "") -> dict[str, Scores]:
        """Its scores by name, for the arrays."""
        return {f"{prefix}{part}": getattr(self, part) for part in PARTS}

    def save(self, folder: Path) -> None:
        """Writes the row, so that a run that is begun again need not score it again."""
        save_json(self.to_json(), self.parts(), folder, "row.json")

    @classmethod
    def load(cls, folder: Path) -> Row:
        """Reads what `save` wrote; raises ValueError where that is damaged."""
        return read_json(folder, "row.json", cls.of)


def over_seeds(rows: list[Row]) -> Row:
    """One row from those of several seeds."""
    parts: dict[str, Any] = {}
    for part in PARTS:
        found = [getattr(row, part) for row in rows]
        parts[part] = {name: averaged([scores[name] for scores in found]) for name in found[0]}
    losses = {holdout: [row.shown[holdout].loss for row in rows] for holdout in rows[0].shown}
    collapses = {
        holdout: sorted({collapse for row in rows for collapse in row.collapsed[holdout]})
        for holdout in rows[0].collapsed
    }
    return replace(rows[0], seeds=len(rows), seed_losses=losses, collapsed=collapses, **parts)


def on_same_tokens(row: Row, other: Row, holdout: str) -> tuple[Score, Score]:
    """Both scores on the whole hold-out where both rows have them, else on its subset."""
    both = (row.scores, other.scores) if row.scores and other.scores else (row.subset, other.subset)
    return both[0][holdout], both[1][holdout]


def minus(row: Row, other: Row, holdout: str) -> Estimate:
    """How much more a router loses than another on the same tokens, nats per token, paired."""
    return difference(*on_same_tokens(row, other, holdout))


def gap_closed(row: Row, fixed: Row, oracle: Row, holdout: str) -> Estimate:
    """How much of the gap between the best fixed pattern and the oracle a router closes; see `gap_between`."""
    ours, whole = on_same_tokens(row, fixed, holdout)
    above, below = fixed.subset[holdout], oracle.subset[holdout]
    return gap_between(ours.sequences, whole.sequences, above.sequences, below.sequences)
