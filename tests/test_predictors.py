"""Routers that predict: how a prediction is scored, and what routes gain that it advises, on a real backbone."""

import numpy as np
import pytest
import torch
from conftest import toy_backbone
from test_evaluate import batches_of
from test_knowable import drawn

from duo import Budget, Spec, Trial, replay
from duo.evaluation.evaluate import evaluate
from duo.evaluation.intervals import estimate_difference
from duo.evaluation.knowable import Knowledge, Predictor, average_knowledge, compare_knowledge, score_prediction
from routers.advised import Advised
from routers.fixed import Fixed
from routers.oracle import Oracle


class Says(torch.nn.Module):
    """Predicts what it is told to, and looks for labels."""

    def __init__(self, log_probability_V):
        super().__init__()
        self.log_probability_V = log_probability_V

    def predict(self, trial):
        with pytest.raises(ValueError, match="no labels"):
            trial.loss(trial.run(replay(torch.ones(*trial.tokens_BT.shape, 3, dtype=torch.long))))
        return self.log_probability_V.expand(*trial.tokens_BT.shape, -1)


def test_a_prediction_is_scored_without_labels_in_reach_by_sequence_in_the_order_of_ids():
    log_probability_V = torch.randn(64).log_softmax(-1)
    first, second = batches_of((4, 3))
    knowledge = score_prediction(toy_backbone(), Says(log_probability_V), [second, first])
    labels = [batch.labels_BT for batch in (first, second)]
    sums = torch.cat([-(log_probability_V[part.clamp(min=0)] * (part >= 0)).sum(1) for part in labels])
    assert knowledge.losses == [pytest.approx(sums.tolist(), rel=1e-5)]
    assert knowledge.loss == pytest.approx(float(sums.sum()) / sum(int((part >= 0).sum()) for part in labels), rel=1e-5)
    twice = average_knowledge([knowledge, Knowledge(knowledge.loss + 2, [[loss + 2 for loss in knowledge.losses[0]]])])
    assert twice.losses == [knowledge.losses[0], [loss + 2 for loss in knowledge.losses[0]]]
    assert twice.loss == pytest.approx(knowledge.loss + 1)


@pytest.mark.parametrize(
    ("log_probability_V", "said"),
    [
        (torch.zeros(3), r"has shape \(4, .*, 3\)"),
        (torch.full((64,), -torch.inf), "rules out"),
        (torch.zeros(64), r"no distribution: its probabilities sum to 64.0, so give logits.log_softmax\(-1\)"),
        (None, "no batch"),
    ],
)
def test_predictions_that_cannot_be_scored_are_named(log_probability_V, said):
    batches = [] if log_probability_V is None else batches_of((4,))
    with pytest.raises(ValueError, match=said):
        score_prediction(toy_backbone(), Says(log_probability_V), batches)


class Taught(Advised):
    """Advised by a teacher out of this process."""

    def __init__(self, spec, backbone):
        super().__init__(spec)
        self.adviser = [backbone]

    @torch.no_grad()
    def advise(self, trial):
        route_BTL = torch.full((*trial.tokens_BT.shape, 3), 2)
        return self.adviser[0](trial.tokens_BT, replay(route_BTL)).logits_BTV.softmax(-1)


def test_routes_that_the_truth_itself_advises_gain_within_their_ceiling_and_less_than_the_labels_oracle():
    """On a real backbone: labels are drawn from the teacher, which then knows all that can be known."""
    backbone, teacher, spec = toy_backbone(), toy_backbone(seed=1), Spec(3, 16, Budget(1))
    advised_router, generator, batches = Taught(spec, teacher), np.random.default_rng(0), []
    for batch in batches_of((16,) * 8, tokens=8):
        truth_BTV = advised_router.advise(Trial(teacher, batch.tokens_BT)).double()
        labels = drawn(generator, truth_BTV.flatten(0, 1).numpy())
        batches.append(batch._replace(labels_BT=torch.from_numpy(labels).view(batch.tokens_BT.shape)))
    fixed, chosen, oracle = (
        evaluate(backbone, router, batches) for router in (Fixed(spec, pattern=[2, 1, 1]), advised_router, Oracle(spec))
    )
    assert not chosen.labels_consulted
    knowledge = score_prediction(backbone, advised_router, batches)
    known = compare_knowledge(chosen.sequences, fixed.sequences, knowledge, "teacher")
    found = estimate_difference(fixed.sequences, chosen.sequences)
    assert found.interval[0] > 0
    assert found.value < known.ceiling.value
    assert chosen.loss - oracle.loss > 0.1


def test_which_routers_predict():
    assert isinstance(Advised(Spec(3, 16, Budget(1))), Predictor)
    assert not isinstance(Oracle(Spec(3, 16, Budget(1))), Predictor)
