"""Routes by what another prediction expects of them, and the prediction of the candidates together."""

import pytest
import torch
from conftest import random_tokens, toy_backbone

from duo import Budget, Trial, replay
from duo.search import all_patterns, expected_loss, patterns_of

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
    found = trial.search(PATTERNS, [Budget(1)], "same", expected_loss, targets=target_BTV, table=True)
    assert found.loss_BTG[..., 0].equal(found.table_BTP.min(-1).values)
    assert not trial.meter.labels_consulted
