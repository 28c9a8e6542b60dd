import numpy as np
import pytest
import torch
from conftest import pass_flops, random_route, random_tokens, toy_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from duo import Budget, Trial, replay
from duo.backbone.flops import run_flops
from duo.routing.loss import token_loss


def trial_of(batch=3, tokens=8, **about):
    tokens_BT = random_tokens(batch, tokens + 1)
    return Trial(toy_backbone(), tokens_BT[:, :-1], tokens_BT[:, 1:], torch.arange(batch) * 7 + 5, **about)


def test_uniform_is_uniform_and_its_draws_do_not_correlate():
    trial = Trial(toy_backbone(layers=8), random_tokens(64, 64))
    draws = [trial.uniform(draw).numpy() for draw in range(2)]
    assert stats.kstest(draws[0].ravel(), "uniform").pvalue > 0.001
    assert abs(np.corrcoef(draws[0].ravel(), draws[1].ravel())[0, 1]) < 0.02
    for axis in range(3):  # neighbours by sequence, position and layer
        near = [np.take(draws[0], range(start, draws[0].shape[axis] - 1 + start), axis).ravel() for start in (0, 1)]
        assert abs(np.corrcoef(*near)[0, 1]) < 0.02
    assert draws[0].min() >= 0
    assert draws[0].max() < 1


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)), st.integers(1, 8))
def test_uniform_follows_the_sequence_not_the_row_nor_the_length(order, tokens):
    tokens_BT, sequence_B = random_tokens(4, 8), torch.tensor([3, 11, 2**40, 0])
    whole = Trial(toy_backbone(), tokens_BT, sequence_B=sequence_B).uniform()
    part = Trial(toy_backbone(), tokens_BT[order, :tokens], sequence_B=sequence_B[order]).uniform()
    assert torch.equal(part, whole[order, :tokens])


def test_uniform_counts_positions_from_the_first_real_token():
    tokens_BT = random_tokens(2, 6)
    padded_BT = torch.cat((torch.full((2, 3), -1), tokens_BT), dim=1)
    assert torch.equal(Trial(toy_backbone(), padded_BT).uniform()[:, 3:], Trial(toy_backbone(), tokens_BT).uniform())


@pytest.mark.parametrize("change", [{"seed": 1}, {"purpose": "train"}, {"step": 1}])
def test_uniform_depends_on_seed_purpose_and_step(change):
    assert (trial_of(**change).uniform() == trial_of().uniform()).float().mean() < 0.01


def test_uniform_leaves_torchs_generator_alone():
    state = torch.get_rng_state()
    trial_of().uniform()
    assert torch.equal(state, torch.get_rng_state())


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 0.6), st.floats(0, 0.4), st.integers(1, 12))
def test_counts_are_whole_sum_to_the_layers_and_average_to_the_budget(big, skip, layers):
    trial = Trial(toy_backbone(layers=layers), random_tokens(40, 60))
    budget = Budget(big, skip).of(layers)
    count_BTM = trial.counts(budget)
    assert (count_BTM.sum(-1) == layers).all()
    for module, mean in ((0, budget.skip), (1, layers - budget.big - budget.skip), (2, budget.big)):
        assert set(count_BTM[..., module].unique().tolist()) <= {int(np.floor(mean + 1e-9)), int(np.ceil(mean - 1e-9))}
        assert float(count_BTM[..., module].double().mean()) == pytest.approx(mean, abs=0.04)


def test_counts_round_the_same_positions_at_every_step_and_purpose():
    assert torch.equal(trial_of(step=3, purpose="train").counts(Budget(0.5)), trial_of().counts(Budget(0.5)))


def test_a_part_is_the_first_sequences_and_tokens_on_the_same_meter():
    trial, route_BTL = trial_of(), random_route(3, 8, 3)
    part = trial.part(2, 5)
    with torch.no_grad():
        loss_BT = part.loss(part.run(replay(route_BTL[:2, :5])))
        whole_BT = trial.loss(trial.run(replay(route_BTL)))
    assert torch.allclose(loss_BT, whole_BT[:2, :5], atol=1e-5)
    assert torch.equal(part.uniform(), trial.uniform()[:2, :5])
    assert part.meter is trial.meter
    assert trial.meter.passes == pytest.approx(1 + 10 / 24)


def test_the_meter_counts_passes_layers_flops_and_labels():
    trial, route_BTL = trial_of(), random_route(3, 8, 3)
    with torch.no_grad():
        run = trial.run(replay(route_BTL))
    assert (trial.meter.passes, trial.meter.layer_evaluations, trial.meter.labels_consulted) == (1, 3 * 8 * 3, False)
    assert pass_flops(trial) == run_flops(toy_backbone().config, run.weight_BTLM, trial.position_BT).sum()
    trial.loss(run)
    assert trial.meter.labels_consulted


def test_generation_has_no_loss():
    trial = Trial(toy_backbone(), random_tokens(1, 4))
    with pytest.raises(ValueError, match="no labels"):
        trial.loss(trial.run(replay(random_route(1, 4, 3))))


def test_token_loss_is_the_negative_log_probability_and_zero_without_a_label():
    logits_BTV, labels_BT = torch.randn(2, 3, 5), torch.tensor([[0, 4, -1], [2, 2, 3]])
    loss_BT = token_loss(logits_BTV, labels_BT)
    for row in range(2):
        for position in range(3):
            label = int(labels_BT[row, position])
            logits = logits_BTV[row, position].double()
            expected = 0 if label < 0 else float(logits.exp().sum().log() - logits[label])
            assert float(loss_BT[row, position]) == pytest.approx(expected, abs=1e-5)
