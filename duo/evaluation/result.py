"""Results: what a run found, to and from `result.json`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from duo.evaluation.bootstrap import Estimate
from duo.evaluation.format import Scores, estimate, read_json, save_json, scores_json, scores_of


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
    """Digest of the weights, parameters and training tokens of the backbone."""
    tokens: str
    """Digest of the tokenizer and of all tokens."""
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
        return values

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
