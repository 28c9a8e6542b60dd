"""`backbone.small_from`: small FFNs that begin as the most active neurons of the big ones, refitted."""

import pytest
import torch
from conftest import random_route, random_tokens, toy_backbone

from duo import replay
from duo.recipe import load
from duo.stages import backbone_source
from duo.training.small import fit_small

CPU = torch.device("cpu")


def errors(backbone, gate):
    """Squared errors of the small FFNs on states of all-big routes, beyond first tokens, as shares; by layer."""
    tokens_BT, seen = random_tokens(16, 20, seed=5), []

    def noted(x_BSD, layer):
        seen.append(x_BSD[:, 1:].flatten(0, 1))
        return torch.eye(3)[gate].expand(*x_BSD.shape[:2], 3)

    with torch.no_grad():
        backbone(tokens_BT, noted)
        found = []
        for layer, x_ND in enumerate(seen):
            ffn, target_ND = backbone.block(layer).ffn, backbone.block(layer).ffn.big(x_ND)
            found.append(float((ffn.small(x_ND) - target_ND).square().mean() / target_ND.square().mean()))
    return found


def fitted(steps, pinned=(), **changes):
    backbone = toy_backbone(layers=3, small=8, **changes).pin(pinned)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    tokens_BT = random_tokens(64, 20)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    fit_small(backbone, tokens_BT, replay(random_route(64, 20, len(backbone.routed))), steps)
    assert torch.equal(state, torch.get_rng_state())
    return backbone, before


@pytest.mark.parametrize("changes", [{}, {"family": "opt"}, {"skip_scope": "block"}])
def test_each_stage_comes_nearer_to_the_big_ffn_and_moves_nothing_else(changes):
    random = errors(toy_backbone(layers=3, small=8, **changes), 2)
    regressed, before = fitted(0, **changes)
    descended, _ = fitted(100, **changes)
    stages = [random, errors(regressed, 2), errors(descended, 2)]
    for worse, better in zip(stages, stages[1:], strict=False):
        assert all(one > other for one, other in zip(worse, better, strict=True)), stages
    for backbone in (regressed, descended):
        moved = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
        assert moved
        assert all("ffn.small." in name for name in moved)
        assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_neurons_that_are_there_are_found_and_regression_weighs_them_right():
    backbone = toy_backbone(layers=1, small=4)
    ffn = backbone.block(0).ffn
    with torch.no_grad():
        silent = torch.ones(32)
        silent[[3, 9, 20, 31]] = 0
        ffn.big.down.weight[:, silent.bool()] = 0  # four neurons alone write anything
    tokens_BT = random_tokens(64, 20)
    fit_small(backbone, tokens_BT, replay(random_route(64, 20, 1)), 0)
    assert torch.equal(ffn.small.up.weight, ffn.big.up.weight[[3, 9, 20, 31]])
    assert torch.allclose(ffn.small.down.weight, ffn.big.down.weight[:, [3, 9, 20, 31]], atol=0.02)


def test_a_small_ffn_as_wide_as_the_big_one_is_the_big_one():
    backbone = toy_backbone(layers=2, small=32)
    fit_small(backbone, random_tokens(64, 20), replay(random_route(64, 20, 2)), 0)
    assert max(errors(backbone, 2)) < 1e-3


def test_states_behind_random_routes_count_too():
    """A fit to states of all big alone is worse behind small FFNs than one to both kinds."""
    tokens_BT, all_big = random_tokens(64, 20), torch.full((64, 20, 3), 2)
    both, alone = toy_backbone(layers=3, small=8), toy_backbone(layers=3, small=8)
    fit_small(both, tokens_BT, replay(random_route(64, 20, 3)), 0)
    fit_small(alone, tokens_BT, replay(all_big), 0)
    assert sum(errors(both, 1)) < sum(errors(alone, 1))


def test_pinned_layers_keep_their_small_ffns():
    backbone, before = fitted(5, pinned=[1])
    moved = {
        name.split(".")[1] for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"0", "2"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["backbone.small_from=big"], r"backbone\.small_from=big takes trained big FFNs: give backbone\.pretrained or"),
        (["backbone.small_from=small"], r"backbone\.small_from='small' must be big, or null"),
        (["backbone.small_steps=-1"], r"backbone\.small_steps=-1 must be 0 or more"),
        (
            ["backbone.small_from=big", "stage1.before.steps=5", "backbone.small=300"],
            r"backbone\.small=300 is more than",
        ),
        (["backbone.small_from=big", "stage1.before.steps=5", f"leaderboard.backbone={'0' * 64}"], "no leaderboard"),
    ],
)
def test_impossible_beginnings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        load("router_budget6", settings)


def train(settings, cache):
    source = backbone_source(load("tiny", settings))
    data = source.open_data(cache)
    return source.train_or_load(data, CPU).module.state_dict()


def test_a_first_part_is_trained_once_and_its_big_ffns_stay_bit_for_bit(small, tmp_path):
    before = "stage1.before={steps: 6, warmup_steps: 2, learning_rate: 0.01, p_big: 1.0, learn: big}"
    settings = [*small[1:], before, "stage1.learn=small", "stage1.learning_rate=0", "stage1.steps=1"]
    plain = train(settings, tmp_path)
    fitted = train([*settings, "backbone.small_from=big"], tmp_path)
    assert len([*tmp_path.glob("backbones/*")]) == 3  # the first part, and two that begin with it
    assert {name for name in plain if not torch.equal(plain[name], fitted[name])} == {
        name for name in plain if "ffn.small." in name
    }
