import pytest
import torch
from conftest import random_route, random_tokens, toy_backbone
from hypothesis import given, settings
from hypothesis import strategies as st

from duo import Budget, Router, Spec, Trial, capped, one_hot, replay, straight_through, top

ROUTES = st.lists(st.lists(st.integers(0, 2), min_size=5, max_size=5), min_size=1, max_size=4)


def ask(gate, tokens, layers=5):
    """The route a gate takes for the last so many tokens of one sequence."""
    x_BSD = torch.zeros(1, tokens, 4)
    return torch.stack([gate(x_BSD, layer).argmax(-1) for layer in range(layers)], dim=-1)


@given(ROUTES, st.data())
def test_replay_follows_the_route_and_slices_its_tail(route, data):
    route_BTL = torch.tensor([route])
    tokens = data.draw(st.integers(1, len(route)))
    assert torch.equal(ask(replay(route_BTL), tokens), route_BTL[:, -tokens:])


@settings(max_examples=100)
@given(ROUTES, st.data())
def test_capped_holds_every_token_to_its_counts_and_changes_no_route_that_keeps_them(route, data):
    route_BTL = torch.tensor([route])
    count = []
    for _ in route:
        big = data.draw(st.integers(0, 5))
        skip = data.draw(st.integers(0, 5 - big))
        count.append([skip, 5 - big - skip, big])
    count_BTM = torch.tensor([count])
    gate = capped(replay(route_BTL), count_BTM)
    tokens = data.draw(st.integers(1, len(route)))
    for _ in range(2):  # it starts anew at layer 0
        used_BTM = one_hot(ask(gate, tokens)).sum(2)
        assert (used_BTM[..., 1:] <= count_BTM[:, -tokens:, 1:]).all()
        assert (used_BTM[..., 0] >= count_BTM[:, -tokens:, 0]).all()
    own_BTM = one_hot(route_BTL).sum(2).long()
    assert torch.equal(ask(capped(replay(route_BTL), own_BTM), len(route)), route_BTL)


def test_capped_gives_the_other_module_while_it_lasts_and_then_skips():
    count_BTM = torch.tensor([[[1, 2, 2]]])
    for module, expected in ((2, [2, 2, 1, 1, 0]), (1, [1, 1, 2, 2, 0]), (0, [0, 0, 0, 0, 0])):
        gate = capped(replay(torch.full((1, 1, 5), module)), count_BTM)
        assert ask(gate, 1).tolist() == [[expected]]


@given(st.integers(0, 2**31), st.integers(0, 6), st.data())
def test_top_gives_the_highest_scores_big_and_the_lowest_skip(seed, big, data):
    skip = data.draw(st.integers(0, 6 - big))
    score_BTL = torch.rand(2, 3, 6, generator=torch.Generator().manual_seed(seed))
    route_BTL = top(score_BTL, torch.tensor([skip, 6 - big - skip, big]).expand(2, 3, 3))
    assert ((route_BTL == 2).sum(-1) == big).all()
    assert ((route_BTL == 0).sum(-1) == skip).all()
    in_order = route_BTL.gather(-1, score_BTL.argsort(-1))
    assert (in_order.diff(dim=-1) >= 0).all()


def test_top_is_exact_where_scores_tie():
    route_BTL = top(torch.zeros(1, 1, 6), torch.tensor([[[1, 3, 2]]]))
    assert sorted(route_BTL.flatten().tolist()) == [0, 1, 1, 1, 2, 2]


def test_straight_through_is_exactly_one_hot_and_has_the_gradient_of_the_softmax():
    logits, factor = torch.randn(50, 3, requires_grad=True), torch.randn(50, 3)
    hard = straight_through(logits)
    assert ((hard == 0) | (hard == 1)).all()
    assert torch.equal(hard.argmax(-1), logits.argmax(-1))
    (gradient,) = torch.autograd.grad((hard * factor).sum(), logits)
    (expected,) = torch.autograd.grad((logits.softmax(-1) * factor).sum(), logits)
    assert torch.allclose(gradient, expected)


def test_a_router_needs_nothing_but_route():
    class Cheapest(Router):
        def route(self, trial):
            return lambda x_BSD, layer: one_hot(torch.ones(x_BSD.shape[:2]))

    tokens_BT = random_tokens(2, 6)
    router = Cheapest(Spec(3, 16, Budget(0.5)))
    trial = Trial(toy_backbone(), tokens_BT[:, :-1], tokens_BT[:, 1:])
    all_small = Trial(toy_backbone(), tokens_BT[:, :-1], tokens_BT[:, 1:])
    expected = all_small.loss(all_small.run(replay(torch.ones(2, 5, 3))))
    assert torch.allclose(router.loss(trial), expected.mean())
    assert router.calibrate([trial]) is None
    assert router.spec.budget == Budget(0.5).of(3)


def test_a_router_without_route_cannot_be_built():
    with pytest.raises(TypeError, match="route"):
        Router(Spec(3, 16, Budget(1)))


def test_a_replayed_route_is_what_the_backbone_reports():
    route_BTL = random_route(2, 5, 3, (0, 1, 2))
    run = toy_backbone()(random_tokens(2, 5), replay(route_BTL))
    assert torch.equal(run.weight_BTLM.argmax(-1), route_BTL)
