"""Whatever is typed or written is answered: by a recipe, or by one ValueError of one line."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from duo.recipe import load, recipes
from duo.recipe.help import settings as all_settings
from duo.stages.output import RECIPE, hold_output

KEYS = [key for key, _, _ in all_settings()]
ODD = [
    "", " ", "~", "null", "None", "none", "on", "0123", "1e3", "1e400", "-1", "0", "3", "0.5", ".nan", "-.inf", "1:30",
    "???", "${seed}", "${oc.env:HOME}", "[]", "{}", "[a, 1]", "{a: 1}", "{1: a, b: 2}", "*x", "&x a", "!!binary aGk=",
    "!!set {a}", "!!python/object:os.system x", "<<", "=", "2024-01-01", "9" * 30, "9" * 5000, "0x" + "f" * 5000, "'",
    '"', '"\\ud800"', "|", "a\nb", "a\x00b", "\x1b[31m", "\udcff", "😀", "\u202e", "a$b^$ll", "[" * 60, "{a: " * 60,
    "x" * 5000, "random", "tiny", "first", "[random, oracle]", "{name: random}", "{x: {router: {name: random}}}",
    "{1: {}, null: null}", "{budget.big: [1, 2]}", "{seed: [1, [2]], output: [a]}", "[*.txt]", "16-mixed",
    "{<<: {a: 1}}", "!x", "%a", "@a", "0o7", "1_0", "\ufeff", "\u2028",
]  # fmt: skip
numbers = st.integers() | st.floats() | st.integers(-4, 20)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=8) | st.sampled_from(ODD) | st.binary(max_size=4)
names = st.sampled_from(KEYS + [key.partition(".")[0] for key in KEYS] + ["base", "name", "seed", "alpha"]) | scalars
trees = st.recursive(
    scalars, lambda part: st.lists(part, max_size=3) | st.dictionaries(names, part, max_size=3), max_leaves=8
)
key_texts = st.sampled_from(KEYS) | st.text("abc.[]=\\ \n", max_size=8) | st.text(max_size=8)
more = st.sampled_from(["", "", ".x", "[x]", ".budget.big", "[budget.big]", "[0]", ".name", ".alpha", ".x.router.name"])
values = (
    st.sampled_from(ODD) | st.text(max_size=12) | trees.map(partial(yaml.dump, default_flow_style=True, width=9999))
)
GOOD = [
    "seed=3", "output=0123", "cache=~/x", "budget.big=0.3", "budget.big=1", "router.name=random", "router.alpha=3",
    "compare.rows.a.router.name=random", "compare.rows[x$y].seed=1", "compare.rows.b={}", "compare.minus=[a]",
    "compare.over[budget.big]=[1, 2]", "compare.over.seed=[1, 2]", "trainer.precision=64", "stage3.batch_size=4",
    "leaderboard.store=hf://a/b", "stage1.learning_rate=6e-3", "backbone.layers=5", "data.source=files",
    "data.train=['*.txt']", "data.holdouts.é=[on, 1e3]", "full_holdout=no", "stage3.budget.big=1",
    "trainer.devices=[0]",
]  # fmt: skip
wild = st.builds("{}{}={}".format, key_texts, more, values) | st.text(max_size=10)
overrides = st.lists(st.sampled_from(GOOD), max_size=4) | st.lists(st.sampled_from(GOOD) | wild, max_size=3)
shipped = [path.read_bytes() for path in recipes().values()]


@st.composite
def recipe_files(draw):
    """Bytes of a recipe: trees of known and unknown keys, broken pieces of shipped ones, or anything at all."""
    kind = draw(st.sampled_from(["tree", "settings", "mutation", "text", "bytes"]))
    if kind == "bytes":
        return draw(st.binary(max_size=60))
    if kind == "text":
        lines = st.builds("{}{}: {}".format, st.sampled_from(["", "  ", "- ", "\t"]), names, values)
        return "\n".join(draw(st.lists(lines, max_size=5))).encode(errors="surrogatepass")
    if kind == "tree":
        return yaml.dump(draw(trees)).encode(errors="surrogatepass")
    if kind == "settings":
        nested = {}
        for key in draw(st.lists(st.sampled_from(KEYS), max_size=4)):
            section, _, name = key.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[name] = draw(trees)
        return yaml.dump({"base": draw(st.sampled_from(["first", "tiny", "x.yaml"]))} | nested).encode(errors="replace")
    text = draw(st.sampled_from(shipped))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        piece = draw(st.sampled_from(ODD).map(lambda odd: odd.encode(errors="surrogatepass")) | st.binary(max_size=3))
        text = text[:start] + piece + text[start + draw(st.integers(0, 12)) :]
    return text


def answer(content, typed):
    """The recipe that a file and what is typed over it make, or None where they are refused on one line."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.yaml"
        path.write_bytes(content)
        try:
            recipe = load(str(path), typed)
            rows = recipe.rows()
        except ValueError as error:
            check_sentence(str(error))
            return None
        for row in [recipe, *rows]:
            assert len(row.digest) == 64
            assert row.spec.layers == row.backbone.layers
            assert row.settings
        came_back(recipe, Path(folder) / "run")
        return recipe


def check_sentence(said):
    """Looks whether a refusal is one line that can be printed."""
    note(said)
    assert len(said.splitlines()) == 1
    assert said.encode()


def came_back(recipe, folder):
    """Looks whether the recipe that a run leaves in its folder is the recipe."""
    with hold_output(recipe, "x", folder):
        again = load(str(folder / RECIPE))
    assert again.digest == recipe.digest
    # not by ==: a NaN in somebody else's options is none other's
    assert repr(again.settings) == repr(recipe.settings)


bounded = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
long = settings(bounded, max_examples=400)


@bounded
@given(recipe_files(), overrides)
def test_any_file_and_any_setting_is_answered_on_one_line(content, typed):
    answer(content, typed)


@bounded
@given(overrides)
def test_any_setting_is_answered_on_one_line(typed):
    answer(b"base: tiny\n", typed)


@settings(bounded, max_examples=15)
@given(st.sampled_from(["output", "cache", "leaderboard.store", "data.column"]), st.text(min_size=1, max_size=20))
def test_any_text_comes_back_from_a_runs_folder_as_it_was_typed(key, typed):
    recipe = answer(b"base: tiny\n", [f"{key}={typed}"])
    if recipe and typed not in ("null", "Null", "NULL") and typed[0] not in "'\"":
        section, _, name = key.rpartition(".")
        assert (recipe.settings[section] if section else recipe.settings)[name] == typed


@pytest.mark.long
@long
@given(recipe_files(), overrides)
def test_very_many_files_and_settings_are_answered_on_one_line(content, typed):
    answer(content, typed)


@pytest.mark.long
@long
@given(overrides)
def test_very_many_settings_are_answered_on_one_line(typed):
    answer(b"base: tiny\n", typed)
