"""Scores: what a router reached and what it cost, as numbers; the schema of everything that is written of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct, structs

from duo.backbone import MODULES
from duo.evaluation.intervals import Estimate, Sequences, estimate_difference, estimate_loss

Cost = Annotated[float, Meta(ge=0, le=1e100)]
Positive = Annotated[float, Meta(gt=0, le=1e100)]
FEW_DOCUMENTS = 8  # with fewer, even the width of an interval is a guess, and that is said beside it
PerModule = Annotated[dict[str, Cost], Meta(min_length=len(MODULES), max_length=len(MODULES))]
"""A number for each module."""


class Score(Struct, frozen=True, dict=True, kw_only=True, forbid_unknown_fields=True):
    """A router on one hold-out; losses are those of one real pass under its hard route.

    What it is made of (`sequences`) is kept beside the fields, and written beside the JSON.
    """

    loss: Cost
    """Nats per token."""
    loss_interval: tuple[float, float] | None
    """95 % interval over documents, and over seeds where the score is of several; none for a single document."""
    perplexity: Positive | None
    """exp(loss); None where that is too large for a number."""
    bits_per_byte: Cost | None
    """Loss in bits per byte of text; None where the batches know no bytes."""
    tokens: Annotated[int, Meta(ge=1)]
    """Scored tokens."""
    documents: Annotated[int, Meta(ge=1)]
    """Documents that they come from: intervals are over these; see FEW_DOCUMENTS."""
    share: PerModule
    """Share of skip, small and big among the modules used."""
    flops_per_token: Positive
    """Backbone FLOPs of the route, per scored token."""
    budget_flops_per_token: Positive
    """Backbone FLOPs of the budget, averaged over the same positions."""
    router_flops_per_token: Cost
    """What deciding cost: every operator the router calls (`duo.routing.operators`) and any passes it asked for."""
    router_parameters: Annotated[int, Meta(ge=0)]
    """Numbers that the router holds beside the backbone: parameters, buffers, and tables wherever it keeps them."""
    router_bytes: Annotated[int, Meta(ge=0)]
    """The bytes they take."""
    within_budget: bool
    """FLOPs at most 1 % over the budget's, and no module used whose budget is 0."""
    passes: Cost
    """Extra passes through the backbone that deciding took."""
    labels_consulted: bool
    """Whether the router read the labels of the tokens it was scored on (a bound, not deployable)."""
    seconds_per_token: Cost
    """Wall time of deciding and of the routed pass (of the first batch, uncounted, where no pass was extra)."""
    time_ratio: Positive
    """Wall time of deciding and of the routed pass over that of all big, in the same process."""
    unexplained_time: bool
    """Whether deciding took longer than its counted FLOPs can explain (`duo.evaluation.timing`): something was not."""
    promised_loss: float | None
    """What a search promised for its routes (its context decides whether `loss` can equal it); else None."""

    @property
    def sequences(self) -> Sequences:
        """What the score is made of, by sequence: for paired comparisons and pictures."""
        found: Sequences = self.__dict__["sequences"]
        return found

    def made_of(self, sequences: Sequences) -> Score:
        """The same score with what it is made of."""
        score = structs.replace(self)
        score.__dict__["sequences"] = sequences
        return score

    def __reduce__(self) -> Any:
        """Pickles the sequences too."""
        return _restore, (structs.asdict(self), self.__dict__.get("sequences"))


def _restore(values: dict[str, Any], sequences: Sequences | None) -> Score:
    score = Score(**values)
    return score if sequences is None else score.made_of(sequences)


Scores = dict[str, Score]
"""Scores by hold-out."""

TIMES = {"seconds_per_token", "time_ratio", "unexplained_time"}
"""Fields that no second run repeats."""

MEANS = (
    "loss", "bits_per_byte", "flops_per_token", "budget_flops_per_token", "router_flops_per_token", "passes",
    "seconds_per_token", "time_ratio", "promised_loss",
)  # fmt: skip


def average_scores(scores: Sequence[Score]) -> Score:
    """One score from those of several seeds on the same tokens: costs are averaged, losses are kept by seed."""
    first, parts = scores[0], [score.sequences for score in scores]
    if len(scores) == 1:
        return first
    values: dict[str, Any] = {
        name: float(np.mean([getattr(score, name) for score in scores]))
        for name in MEANS
        if getattr(first, name) is not None
    }
    sequences = parts[0]._replace(
        loss_ZB=np.concatenate([part.loss_ZB for part in parts]),
        used_TLM=np.sum([part.used_TLM for part in parts], axis=0),
    )
    mean = structs.replace(
        first,
        **values,
        loss_interval=estimate_loss(sequences).interval,
        perplexity=perplexity(values["loss"]),
        share={name: float(np.mean([score.share[name] for score in scores])) for name in first.share},
        within_budget=all(score.within_budget for score in scores),
        labels_consulted=any(score.labels_consulted for score in scores),
        router_parameters=max(score.router_parameters for score in scores),
        router_bytes=max(score.router_bytes for score in scores),
        unexplained_time=any(score.unexplained_time for score in scores),
    )
    return mean.made_of(sequences)


def difference(score: Score, other: Score) -> Estimate:
    """How much more a router loses than another on the same tokens, nats per token, paired."""
    return estimate_difference(score.sequences, other.sequences)


def perplexity(loss: float) -> float | None:
    """exp(loss); None where that is too large for a number."""
    return math.exp(loss) if loss < 700 else None  # a double ends near exp(709)


def find_collapses(score: Score) -> list[str]:
    """Layers that always use one module, or never one that other layers use."""
    used_LM = score.sequences.share_TLM.mean(0)
    found = []
    for layer, used_M in enumerate(used_LM):
        # 1e-9: shares are means, and 1 may be missed by rounding
        always = [f"layer {layer} always uses {MODULES[module]}" for module in np.flatnonzero(used_M > 1 - 1e-9)]
        never = np.flatnonzero((used_M == 0) & (used_LM.sum(0) > 0))
        found += always or [f"layer {layer} never uses {MODULES[module]}" for module in never]
    return found
