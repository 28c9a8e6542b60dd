"""Results: what a run found, to and from `result.json`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from safetensors.numpy import load_file, save_file

from duo.files import replacing
from duo.intervals import Estimate, Sequences
from duo.score import Score

SCHEMA = 2

T = TypeVar("T")

Scores = dict[str, Score]
"""Scores by hold-out."""


class Luck(NamedTuple):
    """A router's gain over the best fixed pattern, in nats per token of the subset."""

    gain: Estimate
    """On the real labels."""
    null_gain: Estimate
    """On labels drawn so that no route can know them: what choosing with the label wins by luck."""
    difference: Estimate
    """What is left, paired."""


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
    gap_closed: dict[str, Estimate]
    """By hold-out, how much of the gap between the best fixed pattern and the oracle the router closes."""
    luck: dict[str, Luck]
    """By hold-out, the part of the router's gain that is luck; empty without `null_draws`."""
    collapsed: dict[str, list[str]]
    """By hold-out, layers at which a router that learned never or always uses a module."""
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
        save_json(self.to_json(), self._parts(), folder, "result.json")

    def to_json(self) -> dict[str, Any]:
        """The content of `result.json`."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        values["scores"] = scores_json(self.scores)
        for part in ("baselines", "subset"):
            values[part] = {name: scores_json(scores) for name, scores in getattr(self, part).items()}
        values["gap_closed"] = {holdout: gap._asdict() for holdout, gap in self.gap_closed.items()}
        values["luck"] = {
            holdout: {name: part._asdict() for name, part in luck._asdict().items()}
            for holdout, luck in self.luck.items()
        }
        return {"schema": values.pop("schema"), **values}

    @classmethod
    def load(cls, folder: Path) -> Result:
        """Reads what `save` wrote.

        Raises:
            ValueError: a file is damaged, or of another version.
        """
        return read_json(folder, "result.json", cls._of)

    @classmethod
    def _of(cls, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> Result:
        values["scores"] = scores_of(values["scores"], arrays, "scores")
        for part in ("baselines", "subset"):
            values[part] = {name: scores_of(row, arrays, f"{part}/{name}") for name, row in values[part].items()}
        values["gap_closed"] = {holdout: estimate(gap) for holdout, gap in values["gap_closed"].items()}
        values["luck"] = {
            holdout: Luck(**{name: estimate(part) for name, part in luck.items()})
            for holdout, luck in values["luck"].items()
        }
        return cls(**values)

    def _parts(self) -> dict[str, Scores]:
        rows = {f"{part}/{name}": row for part in ("baselines", "subset") for name, row in getattr(self, part).items()}
        return {"scores": self.scores, **rows}


def save_json(values: dict[str, Any], parts: dict[str, Scores], folder: Path, name: str) -> None:
    """Writes what scores are made of (`sequences.safetensors`), and then the JSON."""
    arrays = {
        f"{part}/{holdout}/{field}": np.ascontiguousarray(value)
        for part, scores in parts.items()
        for holdout, score in scores.items()
        for field, value in score.sequences._asdict().items()
    }
    with replacing(folder / "sequences.safetensors") as path:
        save_file(arrays, path)
    with replacing(folder / name) as path:
        path.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n")


def read_json(folder: Path, name: str, build: Callable[[dict[str, Any], dict[str, np.ndarray]], T]) -> T:
    """What `build` makes of the JSON and the arrays that `save_json` wrote.

    Raises:
        ValueError: a file is damaged, or of another version.
    """
    path = folder / name
    try:
        values, arrays = json.loads(path.read_text()), load_file(folder / "sequences.safetensors")
        if values.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {values.get('schema')!r}, this duo writes {SCHEMA}")
        return build(values, arrays)
    except Exception as error:  # safetensors has exceptions of its own
        raise ValueError(f"{path} cannot be read ({error}): delete it to evaluate again") from error


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
