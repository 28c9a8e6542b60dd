"""What a run, a backbone and a router are named after: identities that survive new keys, new defaults and tidying."""

import json
from dataclasses import fields, replace

import pytest
from conftest import ROOT, command, load_shipped

from duo.recipe import OldKey, Recipe, build, load, recipes, schema
from duo.recipe import first as first_module
from duo.recipe.first import FIRST, NO_IDENTITY, first_values, flatten, identity_of
from duo.recipe.read import merge
from duo.recipe.renamed import REMOVED, RENAMED
from duo.stages.cache import LAYOUT, open_cache

SINCE_CHANGED = {"data.subset_sequences": 32, "data.subset_tokens": 64}
"""The first defaults of keys that have others by now."""
OLD = json.loads((ROOT / "tests" / "old_recipes.json").read_text())


@pytest.mark.parametrize("name", OLD)
def test_an_old_recipe_keeps_its_digest_for_ever(name):
    """If this fails, identities have changed: mend that, never the list. New recipes may be added behind the others."""
    assert build(merge(first_values(), OLD[name]["recipe"])).digest == OLD[name]["digest"]


def test_every_key_has_a_first_default():
    known = {*flatten(Recipe().settings)} - NO_IDENTITY
    assert known <= {*FIRST}, "a new key needs a line in duo/recipe/first.py: the value that means `as before`"


def test_a_new_key_moves_no_digest_of_a_recipe_that_does_not_use_it(monkeypatch):
    before = load("tiny").digest
    with_new = lambda flat, value: flat | {"stage1.new": value}  # noqa: E731
    monkeypatch.setitem(FIRST, "stage1.new", "as before")
    monkeypatch.setattr(schema, "flatten", lambda values: with_new(flatten(values), "as before"))
    assert load("tiny").digest == before
    monkeypatch.setattr(schema, "flatten", lambda values: with_new(flatten(values), "otherwise"))
    assert load("tiny").digest != before


def test_a_changed_default_moves_no_digest_of_a_recipe_that_says_what_it_was(tmp_path):
    """A run's recipe.yaml and an entry's are over the first defaults, so that they mean for ever what they meant."""
    text = "base: first\nbackbone: {layers: 4}\nbudget: {big: 2}\n"
    (tmp_path / "old.yaml").write_text(text)
    old = load(str(tmp_path / "old.yaml"))
    assert old.settings["stage1"]["learning_rate"] == FIRST["stage1.learning_rate"]
    changed = replace(old, stage1=replace(old.stage1, learning_rate=1.0))  # what a recipe without a base might get
    assert changed.digest != old.digest
    stated = load(str(tmp_path / "old.yaml"), [f"stage1.learning_rate={FIRST['stage1.learning_rate']}"])
    assert stated.digest == old.digest == schema.digest({"backbone.layers": 4, "budget.big": 2.0})


def test_defaults_that_are_the_first_ones_are_no_part_of_an_identity():
    assert load("first").identity() == {}
    assert Recipe().identity() == {key: flatten(Recipe().settings)[key] for key in SINCE_CHANGED}
    assert identity_of(flatten(load("first", ["seed=3"]).settings)) == {"seed": 3}


@pytest.mark.parametrize("name", recipes())
def test_what_the_shipped_recipes_say_is_in_their_identity(name):
    recipe = load_shipped(name)
    flat = flatten(recipe.settings)
    assert all(flat[key] == value for key, value in recipe.identity().items() if key != "stage3.budget")


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_key_is_answered_with_the_new_one(old):
    with pytest.raises(OldKey, match=rf"key '{old}' is called '{RENAMED[old]}' now"):
        load("tiny", [f"{old}=1"])
    with pytest.raises(ValueError, match=rf"compare.rows.mine: key '{old}' is called '{RENAMED[old]}' now"):
        load("tiny", [f"compare.rows.mine.{old}=1"]).groups()


@pytest.mark.parametrize("old", REMOVED)
def test_a_key_that_is_gone_is_answered_with_what_is_in_its_place(old):
    with pytest.raises(OldKey, match=rf"key '{old}' is gone: {REMOVED[old]}"):
        load("tiny", [f"{old}=0"])


def test_the_run_of_an_older_duo_is_named_and_kept(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("# tiny, resolved\nbase: tiny\nstage1: {rate: 0.01}\n")
    (tmp_path / "run" / "result.json").write_text("mine")
    printed = command("recipe=tiny", f"output={tmp_path}/run", f"cache={tmp_path}/cache", check=1)
    assert "holds a run of an older duo (key 'stage1.rate' is called 'stage1.learning_rate' now)" in printed
    assert (tmp_path / "run" / "result.json").read_text() == "mine"
    assert not (tmp_path / "cache").exists()


def test_the_cache_of_an_older_duo_is_named_and_left_as_it_is(small, tmp_path):
    old = tmp_path / "cache" / "backbones" / "0123456789abcdef"
    old.mkdir(parents=True)
    (old / "backbone.safetensors").write_text("mine")
    run = [*small, f"cache={tmp_path}/cache", "router.name=random"]
    printed = command(*run, f"output={tmp_path}/run")
    assert "was filled by another duo: what it holds is left as it is, and made anew" in printed
    assert "training a backbone" in printed
    assert (old / "backbone.safetensors").read_text() == "mine"
    assert (tmp_path / "cache" / "layout").read_text() == f"{LAYOUT}\n"
    assert "another duo" not in command(*run, f"output={tmp_path}/again")


def test_a_new_cache_is_marked_in_silence(tmp_path, caplog):
    open_cache(tmp_path / "cache")
    open_cache(tmp_path / "cache")
    assert not caplog.records


def test_the_table_of_first_defaults_is_written_by_hand():
    """It must not follow the dataclasses, whose defaults may change."""
    source = (ROOT / "duo" / "recipe" / "first.py").read_text()
    assert "import" not in source.replace("from __future__ import annotations", "").replace(
        "from typing import Any", ""
    )
    assert {field.name for field in fields(Recipe)} >= {
        key.partition(".")[0] for key in {*first_module.FIRST} - first_module.GONE
    }


def test_a_key_that_is_gone_or_renamed_later_breaks_no_recipe_over_the_first_defaults(monkeypatch):
    monkeypatch.setitem(FIRST, "data.gone", 1)
    monkeypatch.setattr(first_module, "GONE", first_module.GONE | {"data.gone"})
    monkeypatch.delitem(FIRST, "seed")
    monkeypatch.setitem(FIRST, "random_seed", 0)
    monkeypatch.setattr(first_module, "NOW_CALLED", {"random_seed": "seed"})
    assert flatten(load("first").settings) == flatten(Recipe().settings) | SINCE_CHANGED
    assert load("first", ["seed=3"]).identity() == {"random_seed": 3}


def test_a_key_that_is_no_text_is_named(tmp_path):
    (tmp_path / "odd.yaml").write_text("1: 2\n")
    with pytest.raises(ValueError, match="unknown key '1'"):
        load(str(tmp_path / "odd.yaml"))
