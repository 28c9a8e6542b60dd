"""The search against a brute force of one pass per pattern."""

import itertools

import pytest
import torch
from conftest import backbone_of, pass_flops, random_route, random_tokens, toy_backbone
from test_backbone import MODERN

from duo import Budget, Trial, replay
from duo.routing.loss import token_loss
from duo.search import all_patterns, entropy, expected_loss, patterns_of

SHAPES = [
    {"family": family, "skip_scope": scope, "key_value_heads": heads}
    for family, heads in (("llama", 2), ("llama", None), ("opt", 2))
    for scope in ("ffn", "block")
] + [MODERN | {"skip_scope": "block"}]
SETS = [(1, 2), (0, 1, 2)]


def trial_of(batch=2, tokens=5, padding=0, **shape):
    tokens_BT = random_tokens(batch, tokens + 1)
    tokens_BT[0, :padding] = -1
    return Trial(toy_backbone(**shape), tokens_BT[:, :-1], tokens_BT[:, 1:])


def every_pattern_at_every_token(trial, patterns, context=None):
    """loss_BTP by one whole pass per pattern."""
    with torch.no_grad():
        return torch.stack(
            [
                token_loss(backbone_of(trial)(trial.tokens_BT, replay(route), context).logits_BTV, trial._labels_BT)
                for pattern in patterns
                for route in (torch.tensor(pattern).expand(*trial.tokens_BT.shape, len(pattern)),)
            ],
            dim=-1,
        )


def of_budget(patterns, big, skip=0):
    return [index for index, p in enumerate(patterns) if p.count(2) == big and p.count(0) == skip]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("modules", SETS)
@pytest.mark.parametrize("kind", ["same", "reference", "padded"])
def test_enumeration_equals_one_pass_per_pattern(shape, modules, kind):
    trial = trial_of(padding=2 if kind == "padded" else 0, **shape)
    patterns = [*itertools.product(modules, repeat=3)]
    context = None
    if kind == "reference":
        with torch.no_grad():
            context = backbone_of(trial)(trial.tokens_BT, replay(random_route(2, 5, 3, modules)))
    table_BTP = every_pattern_at_every_token(trial, patterns, context)
    budgets = [(1, 0), (3, 0), (0, 0)] + ([(1, 1), (0, 2)] if 0 in modules else [])
    found = trial.search(
        torch.tensor(patterns),
        [Budget(*budget) for budget in budgets],
        "same" if context is None else context,
        table=True,
    )
    assert torch.allclose(found.table_BTP, table_BTP, atol=1e-5)
    scored = (trial._labels_BT >= 0).sum()
    assert torch.allclose(found.mean_loss_P, table_BTP.sum((0, 1)) / scored, atol=1e-5)
    for index, budget in enumerate(budgets):
        candidates = of_budget(patterns, *budget)
        assert torch.allclose(found.loss_BTG[..., index], table_BTP[..., candidates].amin(-1), atol=1e-5)
        chosen = [[patterns.index(tuple(p)) for p in row] for row in found.route_BTGL[:, :, index].tolist()]
        own = table_BTP.gather(-1, torch.tensor(chosen)[..., None])[..., 0]
        assert torch.allclose(own, found.loss_BTG[..., index], atol=1e-5)


def brute_committed(trial, patterns):
    """Token after token by whole passes without a cache: the routes and what they promise."""
    tokens, routes, losses = trial.tokens_BT.shape[1], [], []
    for at in range(tokens):
        options = []
        for pattern in patterns:
            here = torch.tensor(pattern).expand(len(trial.tokens_BT), 1, -1)
            route = torch.cat([*routes, here], dim=1)
            with torch.no_grad():
                logits = backbone_of(trial)(trial.tokens_BT[:, : at + 1], replay(route)).logits_BTV
            options.append(token_loss(logits, trial._labels_BT[:, : at + 1])[:, -1])
        best = torch.stack(options).min(dim=0)
        losses.append(best.values)
        routes.append(torch.tensor(patterns)[best.indices][:, None])
    return torch.cat(routes, dim=1), torch.stack(losses, dim=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("modules", "big", "skip"), [((1, 2), 1, 0), ((1, 2), 2, 0), ((0, 1, 2), 1, 1)])
def test_committed_equals_brute_force_and_its_replay(shape, modules, big, skip):
    trial = trial_of(**shape)
    patterns = [*itertools.product(modules, repeat=3)]
    candidates = [patterns[index] for index in of_budget(patterns, big, skip)]
    found = trial.search(torch.tensor(patterns), [Budget(big, skip)])
    route_BTL, loss_BT = brute_committed(trial, candidates)
    assert torch.allclose(found.loss_BTG[..., 0], loss_BT, atol=1e-5)
    assert torch.equal(found.route_BTGL[:, :, 0], route_BTL)
    with torch.no_grad():
        replayed = backbone_of(trial)(trial.tokens_BT, replay(found.route_BTGL[:, :, 0]))
    assert torch.allclose(token_loss(replayed.logits_BTV, trial._labels_BT), found.loss_BTG[..., 0], atol=1e-5)
    assert torch.equal(trial.meter.promised_loss, found.loss_BTG[..., 0])


def test_committed_leaves_no_token_better_off_with_another_route_of_its_budget():
    trial = trial_of(batch=3, tokens=6)
    found = trial.search(all_patterns(3), [Budget(1)])
    route_BTL = found.route_BTGL[:, :, 0]
    with torch.no_grad():
        committed = backbone_of(trial)(trial.tokens_BT, replay(route_BTL))
    patterns = patterns_of(3, Budget(1)).tolist()
    others_BTP = every_pattern_at_every_token(trial, patterns, committed)
    assert (found.loss_BTG[..., 0, None] <= others_BTP + 1e-5).all()


def test_same_promises_what_no_single_pass_has():
    trial = trial_of(batch=8, tokens=16)
    found = trial.search(all_patterns(3), [Budget(1)], "same")
    with torch.no_grad():
        replayed = token_loss(
            backbone_of(trial)(trial.tokens_BT, replay(found.route_BTGL[:, :, 0])).logits_BTV, trial._labels_BT
        )
    assert (replayed - found.loss_BTG[..., 0]).abs().max() > 1e-3


def test_a_fractional_budget_and_a_schedule_are_met_at_every_token():
    trial = trial_of(batch=4, tokens=12)
    falling_TM = torch.tensor([[0, 3 - big, big] for big in (3, 2, 1) for _ in range(4)])
    for context in ("same", "committed"):
        found = trial.search(all_patterns(3), [Budget(0.5), falling_TM], context)
        big_BTG = (found.route_BTGL == 2).sum(-1)
        assert torch.equal(big_BTG[..., 0], trial.counts(Budget(0.5))[..., 2])
        assert (big_BTG[..., 1] == falling_TM[:, 2]).all()
        assert found.loss_BTG.isfinite().all()


def test_at_most_is_never_worse_than_exactly_and_spends_no_more():
    trial = trial_of(batch=4, tokens=6)
    exactly = trial.search(all_patterns(3, (0, 1, 2)), [Budget(2), Budget(1, 1)], "same")
    at_most = trial.search(all_patterns(3, (0, 1, 2)), [Budget(2), Budget(1, 1)], "same", at_most=True)
    assert (at_most.loss_BTG <= exactly.loss_BTG).all()
    assert (at_most.loss_BTG < exactly.loss_BTG).any()
    assert ((at_most.route_BTGL[:, :, 0] == 2).sum(-1) <= 2).all()
    assert ((at_most.route_BTGL[:, :, 0] == 0).sum(-1) == 0).all()
    assert ((at_most.route_BTGL[:, :, 1] == 0).sum(-1) >= 1).all()


@pytest.mark.parametrize(("unit", "dims"), [("sequence", (1,)), ("batch", (0, 1))])
def test_a_unit_takes_one_pattern_for_all_its_tokens(unit, dims):
    trial, patterns = trial_of(batch=3, tokens=6), all_patterns(3).tolist()
    found = trial.search(torch.tensor(patterns), [Budget(1)], "same", unit=unit)
    candidates = [index for index, p in enumerate(patterns) if p.count(2) == 1]
    table_BTP = every_pattern_at_every_token(trial, patterns)[..., candidates]
    best = table_BTP.mean(dims, keepdim=True).argmin(-1, keepdim=True).expand(3, 6, 1)
    assert torch.allclose(found.loss_BTG[..., 0], table_BTP.gather(-1, best)[..., 0], atol=1e-5)


def test_a_criterion_takes_the_labels_place_and_consults_none():
    trial = trial_of(batch=2, tokens=5)
    patterns = all_patterns(3)
    with torch.no_grad():
        logits = [
            backbone_of(trial)(trial.tokens_BT, replay(pattern.expand(2, 5, 3))).logits_BTV for pattern in patterns
        ]  # fmt: skip
    probability_BTPV = torch.stack(logits, dim=2).softmax(-1)
    entropy_BTP = -(probability_BTPV * probability_BTPV.log()).sum(-1)
    found = trial.search(patterns, [Budget(1)], "same", entropy, table=True)
    assert torch.allclose(found.table_BTP, entropy_BTP, atol=1e-5)
    target = probability_BTPV.mean(2)
    found = trial.search(patterns, [Budget(1)], "same", expected_loss, targets=target, table=True)
    expected = -(target[:, :, None] * probability_BTPV.log()).sum(-1)
    assert torch.allclose(found.table_BTP, expected, atol=1e-5)
    assert not trial.meter.labels_consulted
    assert trial.meter.promised_loss is None


def test_a_price_trades_loss_against_flops():
    trial = trial_of(batch=4, tokens=6)
    spent = []
    for price in (0.0, 1e-4, 1.0):
        found = trial.search(all_patterns(3), [torch.tensor([0, 0, 3])], at_most=True, price=price)
        spent.append(float((found.route_BTGL == 2).sum()))
    assert spent[0] > spent[1] > spent[2] == 0


def test_the_meter_counts_what_a_search_spends():
    trial = trial_of()
    trial.search(all_patterns(3), [Budget(1)], "same")
    assert trial.meter.layer_evaluations == (2 + 4 + 8) * 10
    assert trial.meter.passes == pytest.approx(14 / 3)
    assert trial.meter.labels_consulted
    one = trial_of()
    one.search(torch.tensor([[2, 1, 2]]), [Budget(2)], "same")
    whole = trial_of()
    with torch.no_grad():
        whole.run(replay(torch.tensor([2, 1, 2]).expand(2, 5, 3)))
    assert pass_flops(one) == pytest.approx(pass_flops(whole))


def test_what_is_found_does_not_depend_on_the_memory():
    trial = trial_of(batch=4, tokens=8)
    whole = trial.search(all_patterns(3, (0, 1, 2)), [Budget(1)], "same", table=True)
    little = trial.search(all_patterns(3, (0, 1, 2)), [Budget(1)], "same", table=True, memory=60_000)
    assert torch.allclose(whole.table_BTP, little.table_BTP, atol=1e-6)


@pytest.mark.parametrize(
    ("patterns", "arguments", "said"),
    [
        (torch.ones(2, 4), {}, "4 layers do not fit a backbone of 3"),
        (torch.full((1, 3), 3), {}, "unknown modules"),
        (torch.ones(0, 3), {}, "at least one"),
        (torch.ones(2, 3), {}, "same one twice"),
        (torch.tensor([[1, 1, 2]]), {"budgets": [Budget(2)]}, "none of the 1 patterns has 2 big and 0 skip"),
        (torch.tensor([[1, 1, 2]]), {"budgets": [Budget(2, 2)]}, "3 layers"),
        (torch.tensor([[1, 1, 2]]), {"memory": 10}, "memory=10 bytes"),
        (torch.tensor([[1, 1, 2]]), {"context": "past"}, "context='past'"),
        (torch.tensor([[1, 1, 2]]), {"unit": "sequence"}, "unit='sequence'"),
        (torch.tensor([[1, 1, 2]]), {"table": True}, "has no table"),
    ],
)
def test_impossible_searches_are_refused_before_any_work(patterns, arguments, said):
    trial = trial_of()
    with pytest.raises(ValueError, match=said):
        trial.search(patterns.long(), **{"budgets": [Budget(1)]} | arguments)
    assert trial.meter.layer_evaluations == 0


def test_a_context_from_other_tokens_and_a_search_without_labels_are_refused():
    trial = trial_of()
    with torch.no_grad():
        other = backbone_of(trial)(random_tokens(2, 5, seed=9), replay(random_route(2, 5, 3)))
    with pytest.raises(ValueError, match="other tokens"):
        trial.search(all_patterns(3), [Budget(1)], other)
    with pytest.raises(ValueError, match="no labels"):
        Trial(toy_backbone(), random_tokens(1, 4)).search(all_patterns(3), [Budget(1)])
