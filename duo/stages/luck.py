"""How much of a gain is luck: the same search on labels that no route can know (design: the luck null)."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from duo.backbone import Backbone
from duo.data.batch import Batch
from duo.data.datamodule import TextData
from duo.evaluation.evaluate import evaluate
from duo.evaluation.intervals import estimate_loss
from duo.evaluation.result import Luck
from duo.evaluation.score import Score
from duo.recipe import Recipe
from duo.routing.meter import Meter
from duo.routing.router import Router
from duo.routing.trial import Trial
from duo.routing.uniform import DRAW_LABELS
from duo.search import patterns_of

log = logging.getLogger(__name__)


def measure_luck(
    recipe: Recipe,
    backbone: Backbone,
    router: Router,
    fixed: Router,
    data: TextData,
    real: dict[str, tuple[Score, Score]],
) -> dict[str, Luck]:
    """A router's gain over the best fixed pattern on real labels and on drawn ones, by hold-out, on the subset.

    Labels are drawn from the averaged prediction of all patterns of the budget given the real tokens before, so that no
    route knows more about them than another; inputs stay real. The router routes anew for every draw, and `fixed` is
    scored again.

    Args:
        real: the scores of router and fixed on the real labels, by hold-out.
    """
    found, device = {}, next(backbone.parameters()).device
    pattern_PL = patterns_of(recipe.backbone.layers, recipe.budget)
    for holdout in data.holdouts:
        batches = [batch.to(device) for batch in data.subset(holdout)]
        predicted = [Trial.of(batch, backbone, meter=Meter(enabled=False)).prediction(pattern_PL) for batch in batches]
        gains = []
        for draw in range(recipe.null_draws):
            log.info("luck  %s, draw %s of %s", holdout, draw + 1, recipe.null_draws)
            drawn = [
                relabel(batch, backbone, probability_BTV, recipe.seed, draw)
                for batch, probability_BTV in zip(batches, predicted, strict=True)
            ]
            gains.append(_gain_B(*(evaluate(backbone, row, drawn, recipe.seed) for row in (router, fixed))))
        sequences = real[holdout][0].sequences
        gain_B, null_B = _gain_B(*real[holdout]), np.mean(gains, axis=0)
        parts = [sequences._replace(loss_ZB=part_B[None]) for part_B in (gain_B, null_B, gain_B - null_B)]
        found[holdout] = Luck(*map(estimate_loss, parts))
    return found


def _gain_B(router: Score, fixed: Score) -> np.ndarray:
    """How much less the router loses than the fixed pattern, summed over the tokens of each sequence."""
    return fixed.sequences.loss_B - router.sequences.loss_B


def relabel(batch: Batch, backbone: Backbone, probability_BTV: Tensor, seed: int, draw: int) -> Batch:
    """The batch with labels drawn from a prediction; the same ones however it is batched."""
    uniform_BT = Trial.of(batch, backbone, seed=seed, purpose=DRAW_LABELS).uniform(draw)[..., 0]
    below_BTV = probability_BTV.double().cumsum(-1) <= uniform_BT.double()[..., None]
    drawn_BT = below_BTV.sum(-1).clamp(max=probability_BTV.shape[-1] - 1)  # the sum may end just under 1
    return batch._replace(labels_BT=torch.where(batch.labels_BT >= 0, drawn_BT, batch.labels_BT))
