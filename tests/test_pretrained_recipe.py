"""`backbone.pretrained`: sizes come from the model, its weights begin stage 1, and its tokens must be the data's."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from toy_pretrained import edit, saved

from duo.backbone import BackboneConfig
from duo.recipe import load
from duo.recipe.first import FIRST, identity_of
from duo.stages import backbone_source
from duo.stages.publish import DEFAULTS, NAMED, shape_of

OLD = ["budget.big=1", "stage1.steps=1", "stage1.warmup_steps=0"]


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    saved(folder, "Qwen2", vocab_size=512)
    return folder


def ask(model, *settings):
    return load("router_budget6", [f"backbone.pretrained={model}", *OLD, *settings])


def test_the_shape_is_the_models(model):
    backbone = ask(model, "backbone.small=3", "backbone.skip_scope=block").backbone
    assert (backbone.layers, backbone.width, backbone.heads, backbone.key_value_heads, backbone.big) == (
        2,
        16,
        4,
        2,
        24,
    )
    assert (backbone.attention_bias, backbone.vocabulary, backbone.tied) == ("qkv", 512, False)
    assert (backbone.small, backbone.skip_scope) == (3, "block")
    assert ask(model, "backbone.width=16").backbone.width == 16


def test_where_no_number_is_given_a_small_ffn_is_a_sixteenth_as_wide_as_the_models(model):
    edit(model, intermediate_size=64)
    assert ask(model, "backbone.small=null").backbone.small == 4
    edit(model, intermediate_size=8)
    assert ask(model, "backbone.small=null").backbone.small == 1
    assert load("tiny", ["backbone.small=null", "backbone.big=128"]).digest == load("tiny", ["backbone.big=128"]).digest


def test_the_recipes_for_a_pretrained_model_ask_for_one(model):
    for name in "pretrained", "pretrained_sweep":
        with pytest.raises(ValueError, match=r"takes trained big FFNs: give backbone\.pretrained or"):
            load(name)
        recipe = load(name, [f"backbone.pretrained={model}", "budget.pinned=[]"])
        assert (recipe.backbone.small_from, recipe.backbone.small, recipe.stage1.learn) == ("big", 1, "small")


@pytest.mark.parametrize("setting", ["width=32", "layers=4", "tied=true", "rotary_base=5.0", "qk_norm=true"])
def test_another_shape_beside_it_is_refused(setting, model):
    key, _, value = setting.partition("=")
    if value in (str(DEFAULTS[key]), str(DEFAULTS[key]).lower()):
        ask(model, f"backbone.{setting}")  # the default says nothing: a run's recipe.yaml is over the first ones
        return
    with pytest.raises(ValueError, match=rf"backbone\.{key}=.* stands beside backbone\.pretrained=.*: leave it out"):
        ask(model, f"backbone.{setting}")


def test_two_backbones_too_long_sequences_and_no_model_are_refused(model):
    with pytest.raises(ValueError, match="name two backbones"):
        ask(model, f"leaderboard.backbone={'0' * 64}")
    with pytest.raises(ValueError, match=r"backbone\.pretrained=/nowhere is no folder"):
        ask("/nowhere")
    edit(model, use_sliding_window=True, sliding_window=32, max_window_layers=0, layer_types=...)
    with pytest.raises(ValueError, match=r"data\.tokens=128 is more than backbone\.window=32"):
        ask(model)


def test_a_shape_of_before_is_named_as_before():
    old = BackboneConfig()
    backbone = torch.nn.Module()
    backbone.config = old
    assert [*shape_of(backbone)] == [key.removeprefix("backbone.") for key in FIRST if key.startswith("backbone.")][:13]
    assert {*shape_of(backbone)} == NAMED
    backbone.config = BackboneConfig(head_dim=8)
    assert {*shape_of(backbone)} == NAMED | {"head_dim"}
    assert identity_of({f"backbone.{key}": value for key, value in DEFAULTS.items()}) == {}


@pytest.fixture
def settings(small):
    """Arguments that make a run on `files` small, whatever its backbone."""
    return [each for each in small[1:] if not each.startswith(("backbone.", "budget.", "stage1.steps"))]


def test_a_run_begins_with_the_models_weights_on_its_tokens_alone(model, settings, tmp_path):
    source = backbone_source(ask(model, *settings, "stage1.learn=small"))
    with pytest.raises(ValueError, match=r"holds no tokenizer\.json"):
        source.open_data(tmp_path)
    plain = backbone_source(load("router_budget6", [*settings, "backbone.vocabulary=512"]))
    plain.open_data(tmp_path).tokenizer.save(str(model / "tokenizer.json"))
    data = source.open_data(tmp_path)
    made = source.train_or_load(data, torch.device("cpu"))
    theirs = load_file(model / "model.safetensors")
    assert torch.equal(made.module.block(1).ffn.big.up.weight, theirs["model.layers.1.mlp.up_proj.weight"])
    assert torch.equal(made.module.head_weight, theirs["lm_head.weight"])
    moved = tmp_path / "moved"
    shutil.copytree(model, moved)
    assert backbone_source(ask(moved, *settings, "stage1.learn=small")).identity(data) == source.identity(data)
    edit(moved, rms_norm_eps=1e-5)
    assert backbone_source(ask(moved, *settings, "stage1.learn=small")).identity(data) != source.identity(data)
    other = tmp_path / "tokenizer.json"
    Tokenizer(models.WordLevel({"one": 0, "</s>": 1}, unk_token="one")).save(str(other))
    with pytest.raises(ValueError, match="reads the .* tokens of its tokenizer.json.* its losses would mean nothing"):
        backbone_source(ask(model, *settings, f"data.tokenizer={other}")).open_data(tmp_path)


def test_a_budget_of_skips_is_said_to_be_ruinous_to_a_model_that_never_skipped(model, tmp_path, caplog):
    for settings, said in (["budget.skip=1"], True), (["budget.skip=1", "stage1.p_skip=0.2"], False), ([], False):
        caplog.clear()
        with pytest.raises(ValueError, match=r"holds no tokenizer\.json"):
            backbone_source(ask(model, *settings)).open_data(tmp_path)
        assert ("by each skip" in caplog.text) == said
