"""Stage 1 in two parts: what learns, on which data, and what is kept of the first part."""

import numpy as np
import pytest
import torch
from conftest import command
from safetensors.torch import load_file
from test_stream import stream

from duo.backbone import Counts
from duo.backbone.flops import budget_flops
from duo.recipe import load
from duo.stages import backbone_source

CPU = torch.device("cpu")
BEFORE = "stage1.before={steps: 6, warmup_steps: 2, learning_rate: 0.01, p_big: 1.0, learn: big}"


@pytest.fixture
def train(small, tmp_path):
    """Settings to a backbone's weights, its source, and the cache it lies in."""

    def trained(*settings):
        source = backbone_source(load("tiny", [*small[1:], *settings]))
        data = source.open_data(tmp_path)
        return source.train_or_load(data, CPU).module.state_dict(), source, data

    return trained


def changed(before, after):
    """Names of the weights that a training moved."""
    return {name for name in before if not torch.equal(before[name], after[name])}


def named(weights, part):
    return {name for name in weights if part in name}


def test_what_is_to_learn_learns_and_nothing_else(train):
    one, two = ["stage1.steps=1", "stage1.learning_rate=0"], ["stage1.steps=4"]
    begin, _, _ = train(*one)
    weights, small = {*begin}, named(begin, "ffn.small.")
    for learn, expected in {"all": weights, "small": small, "big": weights - small}.items():
        after, _, _ = train(*two, f"stage1.learn={learn}")
        assert changed(begin, after) == expected, learn


def test_all_of_a_backbone_can_learn_again_once_it_is_trained(train):
    _, source, data = train(BEFORE, "stage1.learn=small")
    assert all(parameter.requires_grad for parameter in source.train_or_load(data, CPU).module.parameters())


def test_the_second_part_begins_with_the_firsts_weights_and_leaves_what_is_frozen(train):
    first, _, _ = train("stage1.steps=6", "stage1.p_big=1", "stage1.learn=big", "stage1.learning_rate=0.01")
    both, _, _ = train(BEFORE, "stage1.learn=small")
    assert changed(first, both) == named(first, "ffn.small.")


def test_the_first_part_is_a_backbone_that_its_own_recipe_shares(train, tmp_path):
    train(BEFORE, "stage1.learn=small")
    kept = {path.parent.name for path in tmp_path.glob("backbones/*/backbone.safetensors")}
    train("stage1.steps=6", "stage1.p_big=1", "stage1.learn=big", "stage1.learning_rate=0.01")
    assert {path.parent.name for path in tmp_path.glob("backbones/*/backbone.safetensors")} == kept
    assert len(kept) == 2


def test_the_second_part_goes_on_behind_the_firsts_data():
    whole, behind = stream(length=40), stream(length=30, first=10)
    assert np.array_equal(np.stack([*whole])[10:], np.stack([*behind]))


def test_two_parts_see_the_tokens_of_one_training_in_its_order(train, monkeypatch):
    from duo.training.lightning_module import DuoModule

    seen, step = [], DuoModule.training_step

    def spying(module, batch, index):
        seen.append(batch.sequence_B)
        return step(module, batch, index)

    monkeypatch.setattr(DuoModule, "training_step", spying)
    _, source, _ = train(BEFORE, "stage1.steps=5")
    parts, seen = seen, []
    _, whole, _ = train("stage1.steps=11")
    assert torch.equal(torch.stack(parts), torch.stack(seen))
    assert source.train_tokens == whole.train_tokens == 11 * 8 * 32


def test_a_run_that_was_killed_in_its_second_part_ends_with_the_same_weights(small, tmp_path, monkeypatch):
    from duo.training.lightning_module import DuoModule

    settings = [*small, BEFORE, "stage1.learn=small", "router.name=random"]
    command(*settings, f"output={tmp_path}/whole", f"cache={tmp_path}/one")
    step, taken = DuoModule.training_step, []

    def dying(module, batch, index):
        taken.append(index)
        if len(taken) == 6 + 7:  # of the second part's 12, behind its first checkpoint
            raise ValueError("killed")
        return step(module, batch, index)

    monkeypatch.setattr(DuoModule, "training_step", dying)
    command(*settings, f"output={tmp_path}/killed", f"cache={tmp_path}/two", check=1)
    monkeypatch.setattr(DuoModule, "training_step", step)
    command(*settings, f"output={tmp_path}/killed", f"cache={tmp_path}/two")
    whole, killed = (load_file(tmp_path / name / "backbone.safetensors") for name in ("whole", "killed"))
    assert not changed(whole, killed)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("stage1.learn=both", "stage1.learn='both' is unknown: choose one of all, big, small"),
        ("stage1.before={learn: both}", "stage1.before.learn='both' is unknown"),
        ("stage1.before={p_big: 2}", "stage1.before.p_big=2"),
        ("stage1.before={rate: 2}", "stage1.before.rate"),
        ("stage1={learn: small, p_big: 1}", "stage1.learn=small trains nothing where no token runs a small FFN"),
    ],
)
def test_an_impossible_part_is_named(setting, said):
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        load("tiny", [setting])


@pytest.mark.parametrize("name", ["dense_big", "dense_small", "dense_equal_flops", "freeze_big"])
def test_twins_train_on_the_default_backbones_data_for_as_many_tokens(name):
    twin, default = load(name), load("router_budget6")
    assert twin.data == default.data
    assert backbone_source(twin).train_tokens == backbone_source(default).train_tokens
    assert {row.stage1.learning_rate for row in twin.rows()} == {default.stage1.learning_rate}
    assert twin.stage1.before is None or twin.stage1.before.learning_rate == default.stage1.learning_rate


def test_the_dense_model_of_equal_flops_costs_what_half_of_the_modules_big_cost():
    position_N = torch.arange(128)
    duo = budget_flops(load("router_budget6").backbone, Counts(0, 6, 6), position_N)
    dense = budget_flops(load("dense_equal_flops").backbone, Counts(0, 0, 12), position_N)
    assert dense == duo
