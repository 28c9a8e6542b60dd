"""Beam and local search against enumeration and against replays."""

import itertools

import pytest
import torch
from conftest import backbone_of, pass_flops, random_route, random_tokens, toy_backbone

from duo import Budget, Spec, Trial, replay
from duo.routing.climb import climb, mean_losses
from duo.routing.loss import token_loss
from duo.search import entropy, patterns_of
from duo.search.patterns import pattern_codes
from routers.oracle import Oracle

LAYERS = 5
METHODS = ["beam", "local"]
SHAPES = [
    {"family": family, "skip_scope": scope, "key_value_heads": 2}
    for family in ("llama", "opt")
    for scope in ("ffn", "block")
]
BUDGETS = [Budget(2), Budget(0.3, 0.3), Budget(5)]


def trial_of(batch=3, tokens=6, padding=0, layers=LAYERS, seed=0, **shape):
    tokens_BT = random_tokens(batch, tokens + 1, seed=seed)
    tokens_BT[0, :padding] = -1
    return Trial(toy_backbone(layers=layers, **shape), tokens_BT[:, :-1], tokens_BT[:, 1:])


def starts_of(budget, layers=LAYERS):
    """The first pattern of each count."""
    patterns = patterns_of(layers, budget)
    code_P = pattern_codes(patterns)
    return torch.stack([patterns[code_P == code][0] for code in code_P.unique()])


def swaps(pattern_L):
    """The pattern, and every other one that exchanges the modules of two of its layers, (P, L)."""
    found = [pattern_L]
    for one, other in itertools.combinations(range(len(pattern_L)), 2):
        if pattern_L[one] != pattern_L[other]:
            found.append(pattern_L.clone())
            found[-1][[one, other]] = pattern_L[[other, one]]
    return torch.stack(found)


def reference_of(trial, modules=(0, 1, 2)):
    with torch.no_grad():
        return backbone_of(trial)(
            trial.tokens_BT, replay(random_route(*trial.tokens_BT.shape, backbone_of(trial).config.layers, modules))
        )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_committed_promise_equals_its_replay_spends_the_counts_and_never_beats_the_optimum(
    method, width, budget, shape
):
    trial = trial_of(padding=2, **shape)
    found = trial.search(starts_of(budget), [budget], method=method, width=width)
    route_BTL = found.route_BTGL[:, :, 0]
    with torch.no_grad():
        replayed = backbone_of(trial)(trial.tokens_BT, replay(route_BTL))
    assert torch.allclose(token_loss(replayed.logits_BTV, trial._labels_BT), found.loss_BTG[..., 0], atol=1e-5)
    assert torch.equal(trial.meter.promised_loss, found.loss_BTG[..., 0])
    assert torch.equal((route_BTL[..., None] == torch.arange(3)).sum(2), trial.counts(budget))
    exact = trial.search(patterns_of(LAYERS, budget), [budget])
    assert (found.loss_BTG[:, 0] >= exact.loss_BTG[:, 0] - 1e-5).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES)
def test_behind_a_reference_no_token_beats_its_optimum_nor_loses_to_its_start(method, shape):
    trial, budget = trial_of(padding=2, **shape), Budget(1, 1)
    reference, patterns, starts = reference_of(trial), patterns_of(LAYERS, budget), starts_of(budget)
    found = trial.search(starts, [budget], reference, method=method, width=2).loss_BTG
    assert (found >= trial.search(patterns, [budget], reference).loss_BTG - 1e-5).all()
    start_BT = trial.search(starts, [budget], reference).loss_BTG
    assert (found <= start_BT + 1e-5).all()
    assert (found < start_BT - 1e-3).any()


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["committed", "reference"])
def test_a_beam_that_keeps_every_beginning_is_exact(budget, shape, kind):
    trial = trial_of(padding=2, **shape)
    context = reference_of(trial) if kind == "reference" else kind
    found = trial.search(starts_of(budget), [budget], context, method="beam", width=100)
    exact = trial.search(patterns_of(LAYERS, budget), [budget], context)
    assert torch.allclose(found.loss_BTG, exact.loss_BTG, atol=1e-5)
    scored_BT = trial._labels_BT >= 0  # elsewhere all routes are alike
    assert torch.equal(found.route_BTGL[scored_BT], exact.route_BTGL[scored_BT])


@pytest.mark.parametrize("budget", [Budget(2), Budget(1, 2)])
def test_local_search_leaves_no_swap_that_helps_if_it_may_try_them_all(budget):
    trial = trial_of()
    reference = reference_of(trial)
    found = trial.search(starts_of(budget), [budget], reference, method="local", width=100)
    patterns = patterns_of(LAYERS, budget)
    table_BTP = trial.search(patterns, [budget], reference, table=True).table_BTP
    index = {tuple(pattern): p for p, pattern in enumerate(patterns.tolist())}
    for row, at in [(row, at) for row in range(3) for at in range(6)]:
        near = [index[tuple(pattern)] for pattern in swaps(found.route_BTGL[row, at, 0]).tolist()]
        assert found.loss_BTG[row, at, 0] <= table_BTP[row, at, near].min() + 1e-5


def test_the_meter_counts_what_approximate_searches_spend():
    trial = trial_of(batch=2, tokens=5, layers=3)
    trial.search(starts_of(Budget(1), 3), [Budget(1)], reference_of(trial), method="beam")
    assert trial.meter.layer_evaluations == (2 + 3 + 3) * 10  # beginnings that can still spend exactly one big
    trial = trial_of(batch=2, tokens=5, layers=3)
    trial.search(starts_of(Budget(1), 3), [Budget(1)], method="beam")
    assert trial.meter.layer_evaluations == (2 + 3 + 3 + 3) * 10  # and the commitment of the best
    trial = trial_of(batch=2, tokens=5, layers=3)
    trial.search(starts_of(Budget(1), 3), [Budget(1)], reference_of(trial), method="local")
    rounds, rest = divmod(trial.meter.layer_evaluations, (2 + 3 + 4) + 2 * 3)  # flips, then two swaps that change it
    assert rest == 0
    assert 10 <= rounds <= 30


def test_a_search_without_a_choice_costs_what_its_one_route_costs():
    trial, whole = trial_of(), trial_of()
    start = torch.full((1, LAYERS), 2)
    trial.search(start, [Budget(LAYERS)], reference_of(trial), method="beam")
    with torch.no_grad():
        whole.run(replay(start.expand(3, 6, LAYERS)))
    assert pass_flops(trial) == pytest.approx(pass_flops(whole))


@pytest.mark.parametrize("method", METHODS)
def test_a_criterion_is_searched_without_labels(method):
    trial = trial_of()
    reference, arguments = reference_of(trial), ([Budget(2)], reference_of(trial), entropy)
    found = trial.search(starts_of(Budget(2)), *arguments, method=method, width=100)
    exact = trial.search(patterns_of(LAYERS, Budget(2)), *arguments)
    assert not trial.meter.labels_consulted
    assert trial.meter.promised_loss is None
    assert (found.loss_BTG >= exact.loss_BTG - 1e-5).all()
    with torch.no_grad():
        chosen = backbone_of(trial)(trial.tokens_BT, replay(found.route_BTGL[:, :, 0]), reference)
    assert torch.allclose(entropy(chosen.logits_BTV.flatten(0, 1)), found.loss_BTG.flatten(), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_found_does_not_depend_on_the_memory(method):
    trial = trial_of(batch=5)
    whole = trial.search(starts_of(Budget(2)), [Budget(2)], method=method)
    little = trial.search(starts_of(Budget(2)), [Budget(2)], method=method, memory=80_000)
    assert torch.allclose(whole.loss_BTG, little.loss_BTG, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_too_deep_to_enumerate_is_searched(method):
    trial = trial_of(batch=2, tokens=3, layers=24)
    start_PL = torch.tensor([[1, 2] * 12])
    reference = reference_of(trial)
    found = trial.search(start_PL, [Budget(12)], reference, method=method, width=4)
    start = trial.search(start_PL, [Budget(12)], reference)
    assert (found.loss_BTG < start.loss_BTG).any()
    assert ((found.route_BTGL == 2).sum(-1) == 12).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"method": "annealing"}, "method='annealing' is unknown: choose one of exact, beam, local"),
        ({"context": "same"}, "context='same'.*method='exact'"),
        ({"price": 1.0}, "method='exact'"),
        ({"at_most": True}, "method='exact'"),
        ({"width": 0}, "width=0"),
        ({"memory": 10}, "memory=10 bytes"),
        ({"pattern_PL": patterns_of(LAYERS, Budget(2))}, "10 patterns hold 1 counts"),
        ({"pattern_PL": patterns_of(LAYERS, Budget(5))}, "none of the 1 patterns has 2 big and 0 skip"),
    ],
)
def test_impossible_approximate_searches_are_refused_before_any_work(arguments, said):
    trial = trial_of()
    with pytest.raises(ValueError, match=said):
        trial.search(**{"pattern_PL": starts_of(Budget(2)), "budgets": [Budget(2)], "method": "local"} | arguments)
    assert trial.meter.layer_evaluations == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", [{}, {"schedule": [3, 1]}])
def test_the_oracle_searches_deep_models_from_patterns_found_in_calibration(method, options):
    trial, router = trial_of(), Oracle(Spec(LAYERS, 16, Budget(2)), search=method, **options).eval()
    with torch.no_grad():
        router.calibrate([trial_of(seed=1)])
        loss = trial.loss(trial.run(router.route(trial)))
    assert torch.allclose(loss, trial.meter.promised_loss, atol=1e-5)
    assert {"candidates.start_CL", "price"} == {*router.state_dict()}
    exact = trial.search(patterns_of(LAYERS, Budget(2)), [Budget(2)]) if not options else None
    assert exact is None or loss.mean() < exact.loss_BTG.mean() + 0.5


def test_climbing_ends_where_no_swap_lowers_the_mean_loss():
    trials = [trial_of(seed=1), trial_of(seed=2)]
    best_L = climb(trials, starts_of(Budget(2))[0], 64)
    loss_P = mean_losses(trials, swaps(best_L), 64)
    assert loss_P.argmin() == 0
    assert loss_P[0] < mean_losses(trials, starts_of(Budget(2)), 64)[0]


def test_approximate_oracles_refuse_what_only_enumeration_can_do():
    for options, said in (({"context": "same"}, "router.context=committed"), ({"per": "average"}, "router.per=token")):
        with pytest.raises(ValueError, match=said):
            Oracle(Spec(LAYERS, 16, Budget(2)), search="local", **options)
    with pytest.raises(ValueError, match="router.search='annealing' must be one of exact, beam, local"):
        Oracle(Spec(LAYERS, 16, Budget(2)), search="annealing")


@pytest.mark.parametrize("method", METHODS)
def test_one_layer_has_nothing_to_swap(method):
    trial = trial_of(layers=1)
    found = trial.search(torch.tensor([[2]]), [Budget(1)], method=method)
    assert found.route_BTGL.eq(2).all()
    assert found.loss_BTG.isfinite().all()
