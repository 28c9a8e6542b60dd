"""What can be known, and by whom: what a router's knowledge is worth as a prediction, and how much of it routing gains.

A route is chosen well if its prediction q is good for the token that comes. Whoever chooses without the label knows at
most a distribution of it. Let D be that distribution, calibrated given all that the candidates predict: among tokens
where D and the candidates' predictions are the same, the next one is distributed as D says. Then no choice among the
candidates that depends on nothing else loses less than D itself (Gibbs' inequality), so that

    gain = loss(fixed) - loss(chosen) <= loss(fixed) - loss(D).

Both conditions matter. A prediction that is not calibrated bounds nothing, and neither does one that knows less than
the candidates: a backbone under any fixed pattern loses less than a calibrated table of the last token.

A gain without labels is a lower bound of what can be known: one router that has it shows that it can be had.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
import torch
from msgspec import Meta, Struct
from torch import Tensor

from duo.backbone import Backbone
from duo.data.batch import Batch
from duo.evaluation.decide import scored
from duo.evaluation.intervals import Estimate, Sequences, estimate_difference, estimate_gap_closed
from duo.evaluation.score import Cost
from duo.progress import track
from duo.routing.meter import Meter
from duo.routing.trial import Trial

SURPLUS = 0.05  # nats by which probabilities may sum to more than 1: logarithms in 16 bits do


@runtime_checkable
class Predictor(Protocol):
    """A router that can say what it knows of the next token."""

    def predict(self, trial: Trial) -> Tensor:
        """log_probability_BTV of the next token, without its label."""


class Knowledge(Struct, frozen=True, forbid_unknown_fields=True):
    """What a router knows of the next token, as a prediction, on one hold-out's subset."""

    loss: Cost
    """Nats per token."""
    losses: Annotated[list[Annotated[list[Cost], Meta(max_length=1 << 16)]], Meta(min_length=1, max_length=1 << 10)]
    """Loss of each seed, summed over the tokens of each sequence, in the order of the sequences' ids."""


class Known(Struct, frozen=True, forbid_unknown_fields=True):
    """A row's knowledge beside what its routes make of it, on one hold-out's subset."""

    by: str
    """The row whose prediction the knowledge is."""
    loss: Cost
    """Of that prediction, nats per token."""
    ceiling: Estimate
    """How much less it loses than the best fixed pattern: what routes can gain by it, if it is calibrated and knows all
    that the candidates predict."""
    share: Estimate
    """The part of the ceiling that the row's routes gain; none where there is no ceiling to reach."""


@torch.no_grad()
def score_prediction(backbone: Backbone, predictor: Predictor, batches: Iterable[Batch], seed: int = 0) -> Knowledge:
    """Scores what a router predicts on every sequence once; it sees no label.

    Every process predicts all of the batches: they are the subset of searches, which is small.

    Raises:
        ValueError: no batches, a prediction of another shape than (B, T, V), one that is no distribution, or one that
            rules out what came.
    """
    sums: dict[int, float] = {}
    tokens = 0
    for batch in track(batches, "batch"):
        scored_BT = scored(batch)
        loss_BT = _predicted_losses(backbone, predictor, batch, seed)
        sums |= zip(batch.sequence_B.tolist(), loss_BT.masked_fill(~scored_BT, 0).sum(1).tolist(), strict=True)
        tokens += int(scored_BT.sum())
    if not sums:
        raise ValueError("there is no batch to predict")
    losses = [sums[sequence] for sequence in sorted(sums)]
    if not np.isfinite(losses).all():
        raise ValueError("what is predicted rules out tokens that came, or is no number")
    return Knowledge(sum(losses) / tokens, [losses])


def _predicted_losses(backbone: Backbone, predictor: Predictor, batch: Batch, seed: int) -> Tensor:
    """loss_BT of a prediction, in 64 bits on the CPU; without meaning where there is no label."""
    here = batch.to(next(backbone.parameters()).device)
    trial = Trial.without_labels(here, backbone, seed=seed, meter=Meter(enabled=False))
    log_probability_BTV = predictor.predict(trial)
    wanted = (*here.tokens_BT.shape, backbone.config.vocabulary)
    if log_probability_BTV.shape != wanted:
        raise ValueError(f"what is predicted has shape {tuple(log_probability_BTV.shape)}, not {wanted}")
    check_distribution(log_probability_BTV[scored(here)])
    return -log_probability_BTV.gather(2, here.labels_BT.clamp(min=0)[..., None])[..., 0].double().cpu()


def check_distribution(log_probability_NV: Tensor) -> None:
    """Raises ValueError where probabilities sum to more than 1, as of logits: whoever bets more than all always wins.

    >>> check_distribution(torch.tensor([[0.5, 0.5]]).log())
    >>> check_distribution(torch.tensor([[0.5, 0.5]]))
    Traceback (most recent call last):
    ValueError: what is predicted is no distribution: its probabilities sum to 3.3, so give logits.log_softmax(-1)
    """
    most = float(log_probability_NV.double().logsumexp(-1).max()) if len(log_probability_NV) else 0.0
    if most > SURPLUS:
        raise ValueError(
            f"what is predicted is no distribution: its probabilities sum to {np.exp(most):.1f}, so give "
            "logits.log_softmax(-1)"
        )


def average_knowledge(found: list[Knowledge]) -> Knowledge:
    """That of several seeds on the same tokens."""
    losses = [loss_B for knowledge in found for loss_B in knowledge.losses]
    return Knowledge(float(np.mean([knowledge.loss for knowledge in found])), losses)


def compare_knowledge(chosen: Sequences, fixed: Sequences, knowledge: Knowledge, by: str) -> Known:
    """How much of what is known, beyond the fixed pattern, the chosen routes gain; all on the same sequences."""
    predicted = fixed._replace(loss_ZB=np.array(knowledge.losses))
    ceiling, share = estimate_difference(fixed, predicted), estimate_gap_closed(chosen, fixed, predicted)
    return Known(by=by, loss=knowledge.loss, ceiling=ceiling, share=share)
