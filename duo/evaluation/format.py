"""Scores as JSON, and what they are made of as safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import load_file, save

from duo.evaluation.bootstrap import Estimate, Sequences
from duo.evaluation.score import Score
from duo.storage.files import replacing

SCHEMA = 3

T = TypeVar("T")

Scores = dict[str, Score]
"""Scores by hold-out."""


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
