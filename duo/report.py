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
from duo.intervals import mean_interval

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
    """The router's."""
    baselines: dict[str, Scores]
    """Those of all-small, all-big and random, on the same tokens."""
    provenance: dict[str, Any]
    """Commit, versions, device, seed, seconds and command."""
    schema: int = SCHEMA
    """Version of this format."""

    def rows(self) -> Iterator[tuple[str, Scores]]:
        """The router and its baselines, by name."""
        yield self.router, self.scores
        yield from self.baselines.items()

    def save(self, folder: Path) -> None:
        """Writes `sequences.safetensors` (losses per sequence, shares by place) and then `result.json`."""
        arrays = {
            f"{index}/{holdout}/{name}": np.ascontiguousarray(value)
            for index, (_, scores) in enumerate(self.rows())
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
        values["baselines"] = {name: _json(scores) for name, scores in self.baselines.items()}
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
            rows = [values["scores"], *values["baselines"].values()]
            scores = [_scores(row, arrays, index) for index, row in enumerate(rows)]
        except Exception as error:  # safetensors has exceptions of its own
            raise ValueError(f"{path} cannot be read ({error}): delete it to evaluate again") from error
        return cls(
            **values | {"scores": scores[0], "baselines": dict(zip(values["baselines"], scores[1:], strict=True))}
        )


def table(result: Result, holdout: str) -> Table:
    """One hold-out's rows, each compared with random routes of the same budget on the same tokens.

    Behind each mean stands half the width of its 95 % bootstrap interval over sequences.
    """
    budget = result.budget
    title = f"{holdout}: {result.router} at {budget['big']:g} big and {budget['skip']:g} skipped layers a token"
    view = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in (
        "",
        "loss",
        "minus random",
        "perplexity",
        "bits/byte",
        "skip/small/big",
        "MFLOPs",
        "to budget",
        "deciding",
    ):
        view.add_column(name, justify="right" if name else "left", no_wrap=True)
    random = result.baselines["random"][holdout].sequences
    for name, scores in result.rows():
        score = scores[holdout]
        difference_N = score.sequences.loss_N - random.loss_N
        difference = difference_N.sum() / random.tokens_N.sum()
        view.add_row(
            name,
            f"{score.loss:.4f} {_half(score.loss_interval)}",
            f"{difference:+.4f} {_half(mean_interval(difference_N, random.tokens_N))}",
            f"{score.perplexity:.1f}",
            "" if score.bits_per_byte is None else f"{score.bits_per_byte:.3f}",
            "/".join(f"{share:.2f}" for share in score.share.values()),
            f"{score.flops_per_token / 1e6:.3f}",
            f"{score.flops_per_token / score.budget_flops_per_token - 1:+.1%}" + (" " if score.within_budget else "!"),
            f"{score.deciding_flops_per_token / score.flops_per_token:.1%}",
        )
    return view


def _half(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"±{(interval[1] - interval[0]) / 2:.4f}"


def _json(scores: Scores) -> dict[str, Any]:
    return {holdout: score.to_json() for holdout, score in scores.items()}


def _scores(row: dict[str, Any], arrays: dict[str, np.ndarray], index: int) -> Scores:
    return {
        holdout: Score(
            **values | {"loss_interval": values["loss_interval"] and tuple(values["loss_interval"])},
            sequences=Sequences(*(arrays[f"{index}/{holdout}/{name}"] for name in Sequences._fields)),
        )
        for holdout, values in row.items()
    }
