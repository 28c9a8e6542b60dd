"""Scores: what a router reached and what it cost, as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from duo.backbone import MODULES
from duo.evaluation.bootstrap import Estimate, Sequences, mean_interval, mean_of


@dataclass(frozen=True)
class Score:
    """A router on one hold-out; losses are those of one real pass under its hard route."""

    loss: float
    """Nats per token."""
    loss_interval: tuple[float, float] | None
    """95 % bootstrap interval over sequences."""
    perplexity: float | None
    """exp(loss); None where that is too large for a number."""
    bits_per_byte: float | None
    """Loss in bits per byte of text; None where the batches know no bytes."""
    tokens: int
    """Scored tokens."""
    share: dict[str, float]
    """Share of skip, small and big among the modules used."""
    flops_per_token: float
    """Backbone FLOPs of the route, per scored token."""
    budget_flops_per_token: float
    """Backbone FLOPs of the budget, averaged over the same positions."""
    deciding_flops_per_token: float
    """What deciding cost: the router's arithmetic and any passes it asked for."""
    within_budget: bool
    """FLOPs at most 1 % over the budget's, and no module used whose budget is 0."""
    passes: float
    """Extra passes through the backbone that deciding took."""
    labels_consulted: bool
    """Whether the router read the labels of the tokens it was scored on (a bound, not deployable)."""
    seconds_per_token: float
    """Wall time of deciding and of the routed pass (of the first batch, uncounted, where no pass was extra)."""
    promised_loss: float | None
    """What a search promised for its routes (its context decides whether `loss` can equal it); else None."""
    sequences: Sequences = field(repr=False, compare=False, metadata={"json": False})
    """Per sequence, for paired comparisons and pictures; not part of the JSON."""

    def to_json(self) -> dict[str, Any]:
        """The fields of `result.json`."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.metadata.get("json", True)}


MEANS = (
    "loss", "bits_per_byte", "flops_per_token", "budget_flops_per_token", "deciding_flops_per_token", "passes",
    "seconds_per_token", "promised_loss",
)  # fmt: skip


def averaged(scores: Sequence[Score]) -> Score:
    """One score from those of several seeds on the same tokens: losses are averaged token by token, costs too."""
    first, parts = scores[0], [score.sequences for score in scores]
    if len(scores) == 1:
        return first
    values: dict[str, Any] = {
        name: float(np.mean([getattr(score, name) for score in scores]))
        for name in MEANS
        if getattr(first, name) is not None
    }
    loss_N, used_TLM = (np.mean([getattr(part, name) for part in parts], axis=0) for name in ("loss_N", "used_TLM"))
    return replace(
        first,
        **values,
        loss_interval=mean_interval(loss_N, parts[0].tokens_N),
        perplexity=perplexity(values["loss"]),
        share={name: float(np.mean([score.share[name] for score in scores])) for name in first.share},
        within_budget=all(score.within_budget for score in scores),
        labels_consulted=any(score.labels_consulted for score in scores),
        sequences=parts[0]._replace(loss_N=loss_N, used_TLM=used_TLM),
    )


def difference(score: Score, other: Score) -> Estimate:
    """How much more a router loses than another on the same tokens, nats per token, paired."""
    ours, theirs = score.sequences, other.sequences
    return mean_of(ours.loss_N - theirs.loss_N, ours.tokens_N)


def perplexity(loss: float) -> float | None:
    """exp(loss); None where that is too large for a number."""
    return math.exp(loss) if loss < 700 else None


def collapsed(score: Score) -> list[str]:
    """Layers that always use one module, or never one that other layers use."""
    used_LM = score.sequences.used_TLM.mean(0)
    found = []
    for layer, used_M in enumerate(used_LM):
        always = [f"layer {layer} always uses {MODULES[module]}" for module in np.flatnonzero(used_M > 1 - 1e-9)]
        never = np.flatnonzero((used_M == 0) & (used_LM.sum(0) > 0))
        found += always or [f"layer {layer} never uses {MODULES[module]}" for module in never]
    return found
