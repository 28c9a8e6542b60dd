"""Rows: one router's scores on every hold-out, to and from files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import load_file, save

from duo.files import replacing
from duo.intervals import Estimate, Sequences, gap_between
from duo.score import Score, averaged, difference

SCHEMA = 3

T = TypeVar("T")

Scores = dict[str, Score]
"""Scores by hold-out."""

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


def save_json(values: dict[str, Any], parts: dict[str, Scores], folder: Path, name: str) -> None:
    """Writes what scores are made of (`sequences.safetensors`), and then the JSON, with this format's version."""
    with replacing(folder / "sequences.safetensors") as path:
        path.write_bytes(arrays_of(parts))
    with replacing(folder / name) as path:
        path.write_text(json.dumps({"schema": SCHEMA} | values, indent=1, allow_nan=False) + "\n")


def read_json(folder: Path, name: str, build: Callable[[dict[str, Any], dict[str, np.ndarray]], T]) -> T:
    """What `build` makes of the JSON and the arrays that `save_json` wrote.

    Raises:
        ValueError: a file is damaged, or of another version.
    """
    path = folder / name
    try:
        values, arrays = json.loads(path.read_text()), load_file(folder / "sequences.safetensors")
        if (schema := values.pop("schema", None)) != SCHEMA:
            raise ValueError(f"its schema is {schema!r}, this duo writes {SCHEMA}")
        return build(values, arrays)
    except Exception as error:  # safetensors has exceptions of its own
        raise ValueError(f"{path} cannot be read ({error}): delete it to evaluate again") from error


def arrays_of(parts: dict[str, Scores]) -> bytes:
    """What scores are made of, as safetensors."""
    return save(
        {
            f"{part}/{holdout}/{name}": np.ascontiguousarray(value)
            for part, scores in parts.items()
            for holdout, score in scores.items()
            for name, value in score.sequences._asdict().items()
        }
    )


def scores_json(scores: Scores) -> dict[str, Any]:
    """Scores as plain data."""
    return {holdout: score.to_json() for holdout, score in scores.items()}


def scores_of(row: dict[str, Any], arrays: dict[str, np.ndarray], part: str) -> Scores:
    """Scores from plain data and arrays."""
    return {
        holdout: Score(
            **values | {"loss_interval": _pair(values["loss_interval"])},
            sequences=Sequences(*(arrays[f"{part}/{holdout}/{name}"] for name in Sequences._fields)),
        )
        for holdout, values in row.items()
    }


def estimate(values: dict[str, Any]) -> Estimate:
    """An estimate from plain data."""
    return Estimate(values["value"], _pair(values["interval"]))


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])
