from pathlib import Path

import pytest
from conftest import load_shipped
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from duo.backbone.budget import Budget
from duo.recipe import Recipe, load, recipes
from duo.recipe.help import settings, summary

SHIPPED = [
    "router_budget6", "reference", "stage1", "tiny", "oracle_budget6", "fixed_budget6", "random_budget6",
    "ngram_budget6", "best_of_random_budget6", "compare_budget6", "compare_reference6", "oracle_sweep",
    "oracle_schedule", "oracle_skip6",
]  # fmt: skip


@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_loads_and_says_what_it_is(name):
    recipe = load_shipped(name)
    assert recipe.new_router().spec.budget == recipe.budget.of(recipe.backbone.layers)
    assert summary(recipes()[name]).endswith(".")


def test_the_recipes_of_the_main_job_ship():
    assert {*SHIPPED} <= {*recipes()}
    assert [load("router_budget6", [f"budget.big={budget}"]).budget.big for budget in (4, 8)] == [4, 8]
    default = load("router_budget6")
    assert (default.backbone.layers, default.backbone.width, default.data.source) == (12, 64, "builtin")
    at_four = load("router_budget6", ["budget.big=4"])
    assert at_four.identity("backbone", "stage1", "data") == default.identity("backbone", "stage1", "data")


def test_every_setting_has_a_sentence():
    found = {key: sentence for key, _, sentence in settings()}
    assert {"backbone.seed", "stage1.steps", "stage3.freeze_backbone", "budget.big", "data.holdouts", "trainer"} <= {
        *found
    }
    for key, sentence in found.items():
        assert sentence.rstrip().endswith("."), key


def test_a_resolved_recipe_is_the_same_recipe(tmp_path):
    recipe = load("tiny", ["budget.big=0.3", "router.alpha=3", "seed=5", "data.seed=2"])
    (tmp_path / "recipe.yaml").write_text(OmegaConf.to_yaml(recipe.settings))
    assert load(str(tmp_path / "recipe.yaml")) == recipe
    assert load(str(tmp_path / "recipe.yaml")).digest == recipe.digest


@pytest.mark.parametrize(
    "change",
    [
        "output=x", "cache=none", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.logger=false",
        "trainer.enable_progress_bar=false", "stage1.log_every=3", "stage3.checkpoint_every=7",
        "trainer.compile=true", "trainer.activation_checkpointing=true",
    ],
)  # fmt: skip
def test_identity_leaves_out_output_cache_loggers_and_devices(change):
    assert load("tiny", [change]).digest == load("tiny").digest


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "budget.big=3",
        "router.alpha=1",
        "stage1.steps=61",
        "data.seed=1",
        "backbone.seed=1",
        "trainer.precision=64",
    ],
)
def test_identity_covers_what_alters_a_result(change):
    assert load("tiny", [change]).digest != load("tiny").digest


def test_another_router_leaves_the_recipes_options_behind_but_not_those_typed(tmp_path):
    (tmp_path / "mine.yaml").write_text("# Mine.\nbase: tiny\nrouter: {name: softmax_budget, alpha: 3, hidden: 8}\n")
    (tmp_path / "child.yaml").write_text("# Child.\nbase: mine.yaml\nrouter: {name: random}\n")
    mine = str(tmp_path / "mine.yaml")
    assert load(mine, ["router.alpha=4"]).router == {"name": "softmax_budget", "alpha": 4, "hidden": 8}
    assert load(mine, ["router.name=random", "router.p_big=0.5"]).router == {"name": "random", "p_big": 0.5}
    assert load(mine, ["router.p_big=0.5", "router.name=random"]).router == {"name": "random", "p_big": 0.5}
    assert load(mine, ["router.name=softmax_budget"]).router["alpha"] == 3
    assert load(str(tmp_path / "child.yaml")).router == {"name": "random"}


@given(st.sampled_from([key for key, _, _ in settings() if key.count(".") == 1]), st.integers(0, 20))
def test_a_misspelt_key_is_answered_with_the_right_one(key, at):
    section, _, name = key.partition(".")
    at = at % len(name)
    wrong = name[:at] + "q" + name[at:]
    with pytest.raises(ValueError, match=rf"unknown key '{section}\.{wrong}'.*{section}\.{name}"):
        load("tiny", [f"{section}.{wrong}=1"])


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("router_budegt6", [], "did you mean router_budget6"),
        ("/nowhere/mine.yaml", [], "/nowhere/mine.yaml cannot be read"),
        ("tiny", ["budgt.big=3"], "did you mean budget"),
        ("tiny", ["budget.big=5"], "4 layers"),
        ("tiny", ["budget.big=2", "budget.skip=3"], "4 layers"),
        ("tiny", ["budget.big=-1"], "budget.big=-1 is negative"),
        ("tiny", ["budget.big=six"], "budget.big.*six"),
        ("tiny", ["budget.big=.nan"], "budget.big=nan"),
        ("tiny", ["budget=3"], "budget=3 must hold keys"),
        ("tiny", ["backbone.layers=0"], "backbone.layers=0"),
        ("tiny", ["backbone.layers=two"], "backbone.layers.*two"),
        ("tiny", ["stage1.steps=0"], "stage1.steps=0"),
        ("tiny", ["stage3.learning_rate=-1"], "stage3.learning_rate=-1"),
        ("tiny", ["stage1.p_big=0.9", "stage1.p_skip=0.2"], "stage1.p_big=0.9 and stage1.p_skip=0.2"),
        ("tiny", ["router.name=radnom"], "unknown router 'radnom': did you mean random"),
        ("tiny", ["router.alhpa=3"], "did you mean alpha"),
        ("tiny", ["trainer.device=2"], "did you mean trainer.devices"),
        ("tiny", ["trainer.max_steps=2"], "stage1.steps"),
        ("tiny", ["trainer.max_time=00:00:01:00"], "stage1.steps"),
        ("tiny", ["trainer.precision=16-true"], "bf16-mixed"),
        ("tiny", ["trainer.precision=bf16-mixd"], "did you mean trainer.precision=bf16-mixed"),
        ("tiny", ["trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches=0 must be .* at least 1"),
        ("tiny", ["trainer.accumulate_grad_batches=1.5"], "trainer.accumulate_grad_batches=1.5 must be a whole number"),
        ("tiny", ["trainer.compile=2"], "trainer.compile=2 must be true, false or a backend"),
        ("tiny", ["trainer.activation_checkpointing=all"], "trainer.activation_checkpointing='all' must be true or"),
        ("tiny", ["router.alpha=abc"], "router.alpha='abc'"),
        (
            "tiny",
            ["router.alpha=.nan"],
            "router.alpha=nan is not of the kind that 'softmax_budget' takes: <class 'float'>",
        ),
        ("tiny", ["router.hidden=true"], "router.hidden=True"),
        ("tiny", ["router.hidden=2.5"], "router.hidden=2.5"),
        ("tiny", ["router.name=fixed", "router.pattern=five"], "router.pattern='five'"),
        ("tiny", ["data.holdouts=[x]"], "data|kind"),
        ("tiny", ["data.seed=-1"], "data.seed=-1"),
        ("tiny", ["stage3.batch_size=0"], "stage3.batch_size=0"),
        ("tiny", ["backbone.norm_epsilon=-1"], "backbone.norm_epsilon=-1"),
        ("tiny", ["trainer.logger=csv"], "true, false or a tracker"),
        ("tiny", ["budget.big"], "write key=value"),
        ("tiny", ["data.train=[*.txt]"], "quote the value"),
        ("tiny", ["output=${oc.env:HOME}"], "interpolation"),
        ("tiny", ["backbone.family=opt", "backbone.positions=32"], "backbone.positions=32"),
    ],
)
def test_mistakes_are_named_with_a_way_out(name, overrides, said):
    with pytest.raises(ValueError, match=said):
        load(name, overrides)


def test_a_recipe_that_is_its_own_base_is_named(tmp_path):
    (tmp_path / "loop.yaml").write_text("# Loop.\nbase: loop.yaml\n")
    with pytest.raises(ValueError, match="loop.yaml is its own base"):
        load(str(tmp_path / "loop.yaml"))


def test_names_of_the_users_choice_are_part_of_the_identity(tmp_path):
    digests = {
        load("tiny", ["data.source=files", "data.train=[a.txt]", f"data.holdouts.cache=[{path}]"]).digest
        for path in ("x.txt", "y.txt")
    }
    assert len(digests) == 2


@pytest.mark.parametrize("content", ["a: [", "- 1", "seed: ${oc.env:HOME}", "base: nothing_like_it", "unknown: 1"])
def test_broken_recipe_files_are_named(tmp_path, content):
    (tmp_path / "broken.yaml").write_text(content)
    with pytest.raises(ValueError, match="broken.yaml|nothing_like_it|unknown"):
        load(str(tmp_path / "broken.yaml"))


def test_a_recipes_path_is_looked_up_where_the_user_is(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("# Mine.\nbase: tiny\nseed: 7\n")
    monkeypatch.chdir(tmp_path)
    assert load("mine.yaml").seed == 7
    assert isinstance(load("mine.yaml"), Recipe)
    assert Path("mine.yaml").exists()


def test_a_training_budget_that_is_the_budget_is_no_part_of_the_identity():
    at_six = load("router_budget6", ["stage3.budget.big=6", "stage3.budget.skip=0"])
    assert at_six.digest == load("router_budget6").digest
    assert load(
        "router_budget6", ["budget.big=4", "stage3.budget.big=6", "stage3.budget.skip=0"]
    ).stage3.budget == Budget(6)
