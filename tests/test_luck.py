"""The luck null: labels that no route can know."""

import numpy as np
import pytest
import torch
from conftest import random_tokens, toy_backbone
from test_evaluate import batches_of

from duo import Budget, Spec, Trial, replay
from duo.evaluation.evaluate import evaluate
from duo.search import all_patterns, divergence, patterns_of
from duo.stages.luck import measure_luck, relabel
from routers.fixed import Fixed
from routers.oracle import Oracle

PATTERNS = patterns_of(3, Budget(1))


@torch.no_grad()
def mean_of_passes(backbone, tokens_BT, patterns):
    """The candidates' probabilities, one ordinary pass for each."""
    probabilities = []
    for pattern_L in patterns:
        route_BTL = pattern_L.expand(*tokens_BT.shape, -1)
        probabilities.append(backbone(tokens_BT, replay(route_BTL)).logits_BTV.double().softmax(-1))
    return torch.stack(probabilities).mean(0)


@pytest.mark.parametrize("skip_scope", ["ffn", "block"])
def test_the_averaged_prediction_is_the_mean_of_ordinary_passes(skip_scope):
    backbone, tokens_BT = toy_backbone(skip_scope=skip_scope), random_tokens(2, 7)
    patterns = all_patterns(3, (0, 1, 2))
    trial = Trial(backbone, tokens_BT)
    predicted = trial.prediction(patterns)
    assert predicted.double() == pytest.approx(mean_of_passes(backbone, tokens_BT, patterns), abs=1e-6)
    assert not trial.meter.labels_consulted
    assert trial.meter.passes > 1


def test_the_route_nearest_to_the_averaged_prediction_is_found_without_labels():
    backbone, tokens_BT = toy_backbone(), random_tokens(2, 5)
    trial = Trial(backbone, tokens_BT)
    target_BTV = trial.prediction(PATTERNS)
    found = trial.search(PATTERNS, [Budget(1)], "same", divergence, targets=target_BTV, table=True)
    assert found.loss_BTG[..., 0].equal(found.table_BTP.min(-1).values)
    assert not trial.meter.labels_consulted


def test_drawn_labels_follow_the_prediction_and_not_the_batch():
    backbone = toy_backbone()
    (batch,) = batches_of((4,), tokens=1)
    probability_BTV = torch.tensor([0.5, 0.0, 0.3, 0.2] + [0.0] * 60).expand(4, 1, 64)
    drawn = torch.stack([relabel(batch, backbone, probability_BTV, 0, draw).labels_BT for draw in range(2000)])
    share_V = torch.bincount(drawn.flatten(), minlength=64) / drawn.numel()
    assert share_V == pytest.approx(probability_BTV[0, 0], abs=0.02)
    turned = batch._replace(**{name: getattr(batch, name).flip(0) for name in ("tokens_BT", "labels_BT", "sequence_B")})
    assert relabel(turned, backbone, probability_BTV, 0, 7).labels_BT.flip(0).equal(drawn[7])
    unscored = batch._replace(labels_BT=batch.labels_BT.clone().fill_(-1))
    assert (relabel(unscored, backbone, probability_BTV, 0, 0).labels_BT == -1).all()


class Toys:
    """Hold-outs out of toy batches."""

    holdouts = ("text",)

    def subset(self, name):
        return batches_of((6, 6), tokens=8)


class Few:
    """A recipe, as far as luck reads it."""

    def __init__(self, draws):
        self.null_draws, self.seed, self.trainer = draws, 0, {"accelerator": "cpu"}
        self.budget, self.backbone = Budget(1), toy_backbone().config


def measured(router, draws=6):
    backbone, fixed = toy_backbone(), Fixed(Spec(3, 16, Budget(1)), pattern=[1, 2, 1])
    real = {"text": tuple(evaluate(backbone, row, Toys().subset("text")) for row in (router, fixed))}
    return measure_luck(Few(draws), backbone, router, fixed, Toys(), real)["text"], real["text"]


def test_an_oracle_wins_by_luck_where_no_route_can_know_the_label():
    found, (oracle, fixed) = measured(Oracle(Spec(3, 16, Budget(1))))
    assert found.gain.value == pytest.approx(fixed.loss - oracle.loss)
    assert found.null_gain.interval[0] > 0
    assert found.difference.value == pytest.approx(found.gain.value - found.null_gain.value)
    assert found.difference.interval[0] < found.difference.value < found.difference.interval[1]


def test_a_route_that_does_not_look_at_labels_wins_nothing_beyond_the_fixed_one():
    found, _ = measured(Fixed(Spec(3, 16, Budget(1)), pattern=[1, 2, 1]))
    assert found.gain.value == found.null_gain.value == found.difference.value == 0
    assert np.isfinite(found.gain.interval).all()
