"""The recipes of the paper: what it states, and the same fields at a small scale."""

import json

import pytest
from conftest import ROOT, command

from duo.recipe import load, recipes
from duo.recipe.first import flatten

PAPER = [name for name in recipes() if name.startswith("paper/")]


def trained_tokens(stage, data):
    return stage.steps * data.batch_size * data.tokens


def test_stage_1_is_the_papers():
    recipe = load("paper/stage1")
    shape = recipe.backbone
    assert (shape.layers, shape.width, shape.big, shape.small, shape.tied) == (12, 2560, 10240, 640, True)
    assert (recipe.stage1.p_big, recipe.stage1.p_skip) == (0.5, 0.0)
    assert trained_tokens(recipe.stage1, recipe.data) == pytest.approx(300e9, rel=1e-4)
    assert recipe.data.train_tokens == 300e9


def test_the_hold_outs_are_1024_sequences_each():
    data = load("paper/oracle").data
    assert [*data.holdouts] == ["c4", "python"]
    assert data.subset_sequences == data.holdout_tokens / data.tokens == 1024


def test_the_routers_and_ablations_are_the_papers():
    router = load("paper/router")
    assert trained_tokens(router.stage3, router.data) == pytest.approx(10e9, rel=1e-3)
    assert load("paper/routers").compare.over == {"budget.big": [4, 6, 8]}
    freezing = load("paper/freeze_big")
    parts = [trained_tokens(part, freezing.data) for part in (freezing.stage1.before, freezing.stage1)]
    assert parts == pytest.approx([200e9, 100e9], rel=1e-4)
    assert (freezing.stage1.before.learn, freezing.stage1.learn) == ("big", "small")
    widths = [row.backbone.big for row in load("paper/dense_twins").groups[""].values()][6:9]
    assert widths == [round(10240 * share + 640 * (1 - share)) for share in (0.25, 0.5, 0.75)]


def test_opt_has_the_shape_of_opt_1_3b():
    shape = load("paper/opt").backbone
    found = (shape.family, shape.layers, shape.width, shape.heads, shape.big, shape.vocabulary, shape.positions)
    assert found == ("opt", 24, 2048, 32, 8192, 50272, 2048)


@pytest.mark.parametrize("name", PAPER)
def test_the_small_scale_has_the_same_fields_and_rows(name):
    whole, tiny = load(name), load(name, ["scale=tiny"])
    assert {*flatten(whole.settings)} == {*flatten(tiny.settings)}
    assert whole.groups.keys() == tiny.groups.keys()
    assert [row.router for row in whole.rows()] == [row.router for row in tiny.rows()]
    assert [row.budget for row in whole.rows()] == [row.budget for row in tiny.rows()]
    assert [row.stage1.p_skip for row in whole.rows()] == [row.stage1.p_skip for row in tiny.rows()]
    assert tiny.data.source == "builtin"


@pytest.mark.parametrize("name", PAPER)
def test_what_the_paper_leaves_open_is_marked(name):
    assert recipes()[name].read_text().startswith("# ")
    if name == "paper/stage1":
        text = recipes()[name].read_text()
        for line in ("heads: 20", "  tokens: 2048", "  batch_size: 2048", "  learning_rate", "  precision"):
            assert "assumed" in next(found for found in text.splitlines() if found.startswith(line) or line in found)


def test_a_scale_that_is_not_there_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="unknown scale 'tny': did you mean tiny"):
        load("paper/stage1", ["scale=tny"])
    with pytest.raises(ValueError, match=r"recipe tiny: unknown scale 'big': There are: none"):
        load("tiny", ["scale=big"])


def test_what_is_typed_stands_over_the_scale():
    recipe = load("paper/stage1", ["scale=tiny", "backbone.width=48", "data.source=files", "data.train=[a.txt]",
                                   "data.holdouts.mine=[b.txt]"])  # fmt: skip
    assert (recipe.backbone.width, recipe.backbone.big) == (48, 64)
    assert (recipe.data.train, recipe.data.holdouts) == (["a.txt"], {"mine": ["b.txt"]})


def test_a_recipes_own_scales_are_checked(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("# Mine.\nbase: tiny\nscales: {half: {backbone: {widht: 16}}, odd: 3}\n")
    with pytest.raises(ValueError, match="scales must hold names"):
        load(str(path))
    path.write_text("# Mine.\nbase: tiny\nscales: {half: {backbone: {widht: 16}}}\n")
    assert load(str(path)) == load("tiny")
    with pytest.raises(ValueError, match="did you mean backbone.width"):
        load(str(path), ["scale=half"])


def test_another_source_leaves_the_bases_documents_behind():
    recipe = load("paper/stage1", ["data.source=builtin", "data.tokenizer=null"])
    assert (recipe.data.train, recipe.data.holdouts) == ([], {})


@pytest.mark.long
@pytest.mark.parametrize("name", PAPER)
def test_it_runs_from_end_to_end_at_the_small_scale(name, tmp_path_factory):
    cache = tmp_path_factory.getbasetemp() / "paper"  # shared: backbones are trained once
    output = tmp_path_factory.mktemp("run")
    quiet = "trainer.enable_progress_bar=false"
    printed = command(f"recipe={name}", "scale=tiny", f"cache={cache}", f"output={output}/run", quiet)
    result = json.loads((output / "run" / "result.json").read_text())
    assert result["recipe"] == name.replace("/", "-")
    rows = [row for group in result.get("groups", {}).values() for row in group.values()]
    assert not any(row.get("failed") for row in rows)
    assert "result.json" in printed


def test_help_lists_them_and_the_scale():
    printed = command("--help")
    assert "paper/stage1" in printed
    assert "scale=NAME" in printed


def test_the_wheel_takes_all_recipes():
    assert 'recipes = "duo/recipe/shipped"' in (ROOT / "pyproject.toml").read_text()
    assert {path.parent.name for path in recipes().values()} == {"recipes", "paper"}
