"""Results: what a run of one router found, as it stands in `result.json`."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from duo.evaluation.intervals import Estimate
from duo.evaluation.score import PerModule, Scores


class Result(Struct, frozen=True):
    """Recipe, scores and provenance of one run."""

    recipe: str
    """Name of the recipe."""
    recipe_digest: str
    """Identity of the run."""
    router: str
    """Name of the router."""
    budget: PerModule
    """Modules per token."""
    backbone: dict[str, Any]
    """Digest of the weights, parameters and training tokens of the backbone, and the digest of its tokenizer."""
    tokens: str
    """Digest of the tokenizer and of all tokens."""
    scores: Scores
    """The router's, on full hold-outs; empty where the router searches and is scored on the subset alone."""
    baselines: dict[str, Scores]
    """Those of all-small, all-big, random and the best fixed pattern, on the same tokens."""
    subset: dict[str, Scores]
    """Every row, bounds included, on the subset that searches are scored on."""
    gap_closed: dict[str, Estimate]
    """By hold-out, how much of the gap between the best fixed pattern and the oracle the router closes."""
    gap_from: dict[str, str]
    """By hold-out, the baseline that this gap begins at."""
    foreign: list[str]
    """Hold-outs without a calibration set of their name, where that may be another one than the best fixed pattern."""
    collapsed: dict[str, list[str]]
    """By hold-out, layers at which a router that learned never or always uses a module."""
    provenance: dict[str, Any]
    """Commit, versions, device, seed, seconds and command."""
    search: dict[str, str] | UnsetType = UNSET
    """By row (`router` is the run's own), how its routes were searched for, where not all were compared."""

    def full_rows(self) -> dict[str, Scores]:
        """The router (if it is scored on full hold-outs) and its baselines, by name."""
        return ({self.router: self.scores} if self.scores else {}) | self.baselines

    @property
    def searches(self) -> dict[str, str]:
        """How rows were searched for, by the names that rows have here."""
        return {self.router if name == "router" else name: how for name, how in (self.search or {}).items()}

    def subset_rows(self) -> dict[str, Scores]:
        """Every row of the subset, by name."""
        return {self.router if name == "router" else name: scores for name, scores in self.subset.items()}
