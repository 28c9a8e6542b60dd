"""The closed form against torch's own counter."""

import pytest
import torch
from conftest import random_route, random_tokens, toy_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from duo import Budget, Spec, Trial, replay
from duo.backbone.flops import budget_flops, run_flops
from routers.fixed import Fixed


def counted(backbone, tokens_BT, gate):
    """torch's count of one pass, with full attention over all T keys."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        run = backbone(tokens_BT, gate)
    return run, counter.get_total_flops()


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_a_mixed_route_costs_what_torch_counts_after_halving_the_attention(family, kv_heads):
    backbone = toy_backbone(family=family, key_value_heads=kv_heads)
    tokens_BT, route_BTL = random_tokens(2, 10), random_route(2, 10, 3, (0, 1, 2))
    run, torchs = counted(backbone, tokens_BT, replay(route_BTL))
    ours = run_flops(backbone.config, run.weight_BTLM, torch.arange(10).expand(2, -1))
    masked_half = 2 * 3 * 4 * 16 * (10 * 10 - 10 * 11 // 2)  # sequences, layers, FLOPs a key, keys
    assert ours.shape == (2, 10)
    assert ours.sum() + masked_half == torchs


def test_a_skipped_block_pays_its_keys_and_values_alone():
    backbone, tokens_BT = toy_backbone(skip_scope="block"), random_tokens(2, 10)
    pattern_L = torch.tensor([2, 0, 1])
    run, torchs = counted(backbone, tokens_BT, replay(pattern_L.expand(2, 10, 3)))
    ours = run_flops(backbone.config, run.weight_BTLM, torch.arange(10).expand(2, -1))
    masked_half = 2 * 2 * 4 * 16 * (10 * 10 - 10 * 11 // 2)  # two layers attend
    assert ours.sum() + masked_half == torchs


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["ffn", "block"]), st.sampled_from(["llama", "opt"]))
def test_a_budget_costs_what_a_pattern_of_it_costs(big, skip, scope, family):
    if big + skip > 3:
        return
    backbone = toy_backbone(skip_scope=scope, family=family)
    trial = Trial(backbone, random_tokens(2, 7))
    budget = Budget(big, skip)
    with torch.no_grad():
        run = trial.run(Fixed(Spec(3, 16, budget)).route(trial))
    spent = run_flops(backbone.config, run.weight_BTLM, trial.position_BT).mean()
    assert budget_flops(backbone.config, budget, trial.position_BT) == pytest.approx(float(spent))


def test_padding_costs_nothing_and_moves_no_position():
    backbone, tokens_BT, route_BTL = toy_backbone(), random_tokens(1, 6), random_route(1, 6, 3)
    padded_BT = torch.cat((torch.full((1, 4), -1), tokens_BT), dim=1)
    wide_BTL = torch.cat((torch.full((1, 4, 3), 2), route_BTL), dim=1)
    costs = []
    for tokens, route in ((tokens_BT, route_BTL), (padded_BT, wide_BTL)):
        trial = Trial(backbone, tokens)
        with torch.no_grad():
            costs.append(run_flops(backbone.config, trial.run(replay(route)).weight_BTLM, trial.position_BT))
    assert torch.equal(costs[1][:, 4:], costs[0])
    assert costs[1][:, :4].sum() == 0


def test_a_soft_mixture_pays_for_both_modules():
    config = toy_backbone().config
    both = run_flops(config, torch.tensor([0.0, 0.5, 0.5]).expand(1, 1, 3, 3), torch.zeros(1, 1))
    small, big = (run_flops(config, torch.eye(3)[module].expand(1, 1, 3, 3), torch.zeros(1, 1)) for module in (1, 2))
    skip = run_flops(config, torch.eye(3)[0].expand(1, 1, 3, 3), torch.zeros(1, 1))
    assert both - skip == (small - skip) + (big - skip)
