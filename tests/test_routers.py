"""The routers that ship."""

import pytest
import torch
from conftest import random_tokens, toy_backbone

from duo import Budget, Spec, Trial
from routers.fixed import Fixed
from routers.random import Random
from routers.softmax_budget import SoftmaxBudget

BUDGETS = [Budget(1), Budget(0.5), Budget(1, 1), Budget(0.3, 0.3), Budget(0.5, 0.5), Budget(0), Budget(4)]


def trial_of(sequences=8, tokens=32, domain="", seed=0, **shape):
    tokens_BT = random_tokens(sequences, tokens + 1, seed=seed)
    return Trial(toy_backbone(layers=4, **shape), tokens_BT[:, :-1], tokens_BT[:, 1:], domain=domain)


def used(router, trial):
    """Mean modules per token, (M,), and the weights."""
    with torch.no_grad():
        weight_BTLM = trial.run(router.route(trial)).weight_BTLM
    return weight_BTLM.sum(2).mean((0, 1)), weight_BTLM


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("kind", [Random, Fixed])
def test_random_and_fixed_spend_exactly_the_counts_of_every_token(kind, budget):
    trial = trial_of()
    _, weight_BTLM = used(kind(Spec(4, 16, budget)).eval(), trial)
    assert torch.equal(weight_BTLM.sum(2).long(), trial.counts(budget))


def test_random_takes_every_layer_alike():
    _, weight_BTLM = used(Random(Spec(4, 16, Budget(1))), trial_of(64, 32))
    assert torch.allclose(weight_BTLM[..., 2].mean((0, 1)), torch.full((4,), 0.25), atol=0.03)


def test_coins_fall_as_often_as_they_should():
    mean_M, weight_BTLM = used(Random(Spec(4, 16, Budget(1)), p_big=0.3, p_skip=0.2), trial_of(64, 32))
    assert torch.allclose(mean_M / 4, torch.tensor([0.2, 0.5, 0.3]), atol=0.03)
    assert len(weight_BTLM.sum(2)[..., 2].unique()) == 5  # not the same number in every token


def test_a_fixed_pattern_is_taken_by_every_token():
    _, weight_BTLM = used(Fixed(Spec(4, 16, Budget(1)), pattern=[2, 0, 1, 2]), trial_of())
    assert (weight_BTLM.argmax(-1) == torch.tensor([2, 0, 1, 2])).all()


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (Fixed, {"pattern": [1, 2]}, "4 layers"),
        (Fixed, {"pattern": [1, 2, 3, 1]}, "router.pattern"),
        (Random, {"p_big": 1.5}, "router.p_big"),
        (Random, {"p_big": 0.6, "p_skip": 0.6}, "sum at most 1"),
        (Random, {"p_skip": 0.2}, "needs router.p_big"),
    ],
)
def test_impossible_options_are_named(kind, options, said):
    with pytest.raises(ValueError, match=said):
        kind(Spec(4, 16, Budget(1)), **options)


def untrained_softmax(budget, **options):
    """A softmax router with heads that differ from token to token."""
    torch.manual_seed(1)
    router = SoftmaxBudget(Spec(4, 16, budget), **options)
    for parameter in router.parameters():
        torch.nn.init.normal_(parameter)
    return router


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("scope", ["ffn", "block"])
@pytest.mark.parametrize("hidden", [0, 8])
def test_calibration_meets_the_budget_on_the_worst_domain(budget, scope, hidden):
    trials = [trial_of(16, 64, domain, seed, skip_scope=scope) for seed, domain in enumerate(("text", "code"))]
    router = untrained_softmax(budget, hidden=hidden).eval()
    with torch.no_grad():
        router.calibrate(trials)
    wanted = budget.of(4)
    spent = torch.stack([used(router, trial)[0] for trial in trials])
    assert spent[:, 2].max() <= wanted.big * 1.002
    assert spent[:, 2].max() >= wanted.big * 0.96
    assert spent[:, 0].min() >= wanted.skip * 0.99
    for module, count in enumerate((wanted.skip, 4 - wanted.big - wanted.skip, wanted.big)):
        if not count:
            assert spent[:, module].sum() == 0


def test_softmax_mixes_the_allowed_modules_in_training_and_is_hard_in_evaluation():
    trial = trial_of()
    router = untrained_softmax(Budget(1), sharpness=2.0)
    _, soft = used(router.train(), trial)
    assert (soft[..., 0] == 0).all()
    assert (soft[..., 1:] > 0).all()
    _, hard = used(router.eval(), trial)
    assert ((hard == 0) | (hard == 1)).all()


def test_softmax_hardens_as_training_progresses():
    router, trial = untrained_softmax(Budget(1)).train(), trial_of()
    sharpness = []
    for progress in (0.0, 0.5, 1.0):
        trial.progress = progress
        sharpness.append(float(used(router, trial)[1].amax(-1).mean()))
    assert sharpness == sorted(sharpness)
    assert sharpness[2] > sharpness[0] + 0.05


def test_the_budget_loss_is_the_squared_distance_of_each_sequences_share():
    trial, router = trial_of(), untrained_softmax(Budget(1, 1)).train()
    weight_BTLM = used(router, trial)[1]
    expected = sum(((weight_BTLM[..., module].mean((1, 2)) - 1 / 4) ** 2).mean() for module in (0, 2))
    cross_entropy = trial.loss(trial.run(router.route(trial))).mean()
    with torch.no_grad():
        assert router.loss(trial) == pytest.approx(float(cross_entropy + 10 * expected), rel=1e-5)


def test_training_moves_the_share_towards_the_budget():
    trial, router = trial_of(), untrained_softmax(Budget(3)).train()
    optimizer = torch.optim.Adam(router.parameters(), 0.05)
    before = float(used(router, trial)[0][2])
    for _ in range(30):
        optimizer.zero_grad()
        router.loss(trial).backward()
        optimizer.step()
    assert abs(float(used(router, trial)[0][2]) - 3) < abs(before - 3) / 2
