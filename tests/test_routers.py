"""The routers that ship."""

import pytest
import torch
from conftest import backbone_of, random_tokens, toy_backbone

from duo import Budget, Spec, Trial
from duo.routing.loss import token_loss
from duo.search import patterns_of
from routers.best_of_random import BestOfRandom
from routers.fixed import Fixed
from routers.fixed_best import FixedBest
from routers.oracle import Oracle
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
    assert (used(Fixed(Spec(4, 16, Budget(1)), pattern=2), trial_of())[1].argmax(-1) == 2).all()


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (Fixed, {"pattern": [1, 2]}, "4 layers"),
        (Fixed, {"pattern": [1, 2, 3, 1]}, "router.pattern"),
        (Fixed, {"pattern": 3}, "router.pattern"),
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


def trial_loss(router, trial):
    """Mean loss of a router's own route."""
    with torch.no_grad():
        gate = router.eval().route(trial)
        return float(token_loss(backbone_of(trial)(trial.tokens_BT, gate).logits_BTV, trial._labels_BT).mean())


def test_the_oracle_beats_every_fixed_pattern_and_keeps_its_promise():
    trial, spec = trial_of(4, 12), Spec(4, 16, Budget(2))
    loss = trial_loss(Oracle(spec), trial)
    assert loss == pytest.approx(float(trial.meter.promised_loss.mean()), abs=1e-5)
    assert trial.meter.labels_consulted
    assert loss < min(trial_loss(Fixed(spec, pattern=pattern.tolist()), trial) for pattern in patterns_of(4, Budget(2)))


@pytest.mark.parametrize("budget", [Budget(2), Budget(0.3), Budget(1, 1)])
@pytest.mark.parametrize("kind", [Oracle, FixedBest, BestOfRandom])
def test_searching_routers_spend_exactly_the_counts_of_every_token(kind, budget):
    trial, router = trial_of(4, 8), kind(Spec(4, 16, budget)).eval()
    router.calibrate([trial_of(4, 8, seed=1)])
    assert torch.equal(used(router, trial)[1].sum(2).long(), trial.counts(budget))


@pytest.mark.parametrize("ends", [(3, 1), (1, 3), (2, 2)])
def test_a_schedule_goes_from_its_first_to_its_last_and_averages_to_the_budget(ends):
    _, weight_BTLM = used(Oracle(Spec(4, 16, Budget(2)), schedule=ends).eval(), trial_of(2, 16))
    big_T = weight_BTLM[..., 2].sum(-1)[0]
    assert big_T.mean() == 2
    assert (big_T[0], big_T[-1]) == ends
    assert torch.equal(big_T.sort(descending=ends[0] > ends[1]).values, big_T)


def test_an_average_budget_is_met_by_a_price_and_beats_the_same_budget_per_token():
    trial, spec = trial_of(4, 16), Spec(4, 16, Budget(2))
    router = Oracle(spec, per="average").eval()
    with torch.no_grad():
        router.calibrate([trial])
    mean_M, weight_BTLM = used(router, trial)
    assert mean_M[2] <= 2.001
    assert len(weight_BTLM[..., 2].sum(-1).unique()) > 1
    assert mean_M[2] > 1.2


def test_fixed_best_takes_the_pattern_of_the_lowest_mean_loss():
    trials, spec = (
        [trial_of(4, 8, domain, seed) for seed, domain in enumerate(("text", "code"))],
        Spec(4, 16, Budget(2)),
    )
    router = FixedBest(spec)
    with torch.no_grad():
        router.calibrate(trials)
    mean = lambda one: sum(trial_loss(one, trial) for trial in trials) / 2  # noqa: E731
    losses = {tuple(p): mean(Fixed(spec, pattern=p)) for p in patterns_of(4, Budget(2)).tolist()}
    assert mean(router) == pytest.approx(min(losses.values()), abs=1e-5)


def test_best_of_random_takes_one_pattern_for_a_sequence_and_grows_better_with_more():
    trial, spec = trial_of(4, 8), Spec(4, 16, Budget(2))
    torch.manual_seed(0)
    few, all_of_them = BestOfRandom(spec, patterns=2), BestOfRandom(spec, patterns=100)
    weight_BTLM = used(few, trial)[1]
    assert (weight_BTLM == weight_BTLM[:, :1]).all()
    assert len(all_of_them.pattern_PL) == 6
    assert trial_loss(all_of_them, trial) < trial_loss(few, trial)
    assert trial_loss(BestOfRandom(spec, per="batch"), trial) >= trial_loss(all_of_them, trial)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (Oracle, {"context": "past"}, "router.context='past'"),
        (Oracle, {"per": "sequence"}, "router.per='sequence'"),
        (Oracle, {"schedule": [4, 2]}, r"router.schedule=\[4, 2\] must be two numbers that average"),
        (BestOfRandom, {"patterns": 0}, "router.patterns=0"),
        (BestOfRandom, {"per": "layer"}, "router.per='layer'"),
    ],
)
def test_impossible_options_of_searching_routers_are_named(kind, options, said):
    with pytest.raises(ValueError, match=said):
        kind(Spec(4, 16, Budget(2)), **options)
