"""What a user types is what is meant: texts stay as they are, and what cannot be meant is answered on one line."""

import os

import pytest
from omegaconf import OmegaConf

from duo.recipe import build, load, text
from duo.recipe.first import flatten
from duo.stages.output import cache_of, folder_of


def refusal(name, *overrides):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what is said is looked at by those who call
        load(str(name), overrides).rows()
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize(
    "path",
    [
        "0123", "1e3", "on", "1:30", "2024-01-01", "a:b", "a: b", "[a]", "{a}", "*x", "&x", "!x", "#", "# x", "run #3",
        "none", "naïve😀", "~",
    ],
)  # fmt: skip
def test_a_path_stays_what_was_typed(path):
    assert load("tiny", [f"output={path}"]).output == path
    assert load("tiny", [f"output='{path}'"]).output == path


def test_a_text_in_a_file_stays_what_was_written(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "output: 0123\ncache: on\ndata: {source: files, column: 1e3, train: [0123, 1:30, on, '5'],"
        " holdouts: {1: [2024-01-01], null: [no]}}\ncompare: {rows: {on: {}, 1: {}, 1e3: {}}, minus: [1]}\n"
    )
    recipe = load(str(tmp_path / "mine.yaml"))
    assert (recipe.output, recipe.cache, recipe.data.column) == ("0123", "on", "1e3")
    assert recipe.data.train == ["0123", "1:30", "on", "5"]
    assert recipe.data.holdouts == {"1": ["2024-01-01"], "null": ["no"]}
    assert (recipe.compare.names, recipe.compare.minus) == (["on", "1", "1e3"], ["1"])


def test_null_is_no_value_and_so_is_nothing_in_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("output: ~\ncache:\nstage3: {batch_size: null, budget: Null}\n")
    recipe = load(str(tmp_path / "mine.yaml"), ["leaderboard.store=null"])
    assert (recipe.output, recipe.cache, recipe.leaderboard.store, recipe.stage3.batch_size) == (None,) * 4


def test_a_tilde_is_the_home_folder_wherever_a_path_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yaml").write_text("base: tiny\nseed: 7\n")
    (tmp_path / "mine.yaml").write_text("base: ~/base.yaml\noutput: ~/run\n")
    recipe = load("~/mine.yaml", ["cache=~/cache"])
    assert recipe.seed == 7
    assert folder_of(recipe, "mine") == tmp_path / "run"
    assert cache_of(recipe, tmp_path) == tmp_path / "cache"
    assert recipe.digest == load("tiny", ["seed=7"]).digest
    with pytest.raises(ValueError, match="there is no user ~nobody_of_that_name: write ./~nobody"):
        folder_of(load("tiny", ["output=~nobody_of_that_name/x"]), "tiny")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("output=None", "output=None: write output=null for no value, or output=./None"),
        ("stage3.batch_size=None", "write stage3.batch_size=null"),
        ("output=", "output= has no value: write output=null"),
        ("seed=# x", "seed= has no value"),
        ("router.alpha=\ufeff", "router.alpha= has no value"),
        ("\x85=", r"'\x85' is no key"),
        ("output=???", "output=??? is a value that is still missing"),
        ("router.alpha='???'", "router.alpha=??? is a value"),
        ("data.train=['???']", "data.train.0=??? is a value"),
        ("compare.rows.a.router.name=???", "compare.rows.a.router.name=??? is a value"),
        ("data.train=my/*.txt", """data.train='my/*.txt' must be a list: write data.train='["my/*.txt"]'"""),
        ("data.holdouts.x=a.txt", """write data.holdouts.x='["a.txt"]'"""),
        ("data.holdouts=[x]", "write data.holdouts.NAME=VALUE"),
        ("router=random", "write router.name=VALUE"),
        ("stage1.steps=1e3", "stage1.steps=1000.0 must be a whole number: write 1000"),
        ("stage1.steps=on", "stage1.steps=True must be a whole number"),
        ("stage1.steps=0123", "stage1.steps='0123' is 83 to YAML: write 83"),
        ("stage1.steps=1:30", "stage1.steps='1:30' is 90 to YAML"),
        ("seed=18446744073709551616", "seed=18446744073709551616 is out of range: whole numbers go from -2**63"),
        ("seed=9223372036854775808", "9223372036854775807"),
        ("data.seed='99999999999999999999'", "data.seed=99999999999999999999 is out of range"),
        (f"stage1.steps={'9' * 5000}", "is no int"),
        (f"stage1.grad_clip=0x{'f' * 5000}", "is out of range"),
        ("stage1.p_big=.nan", "stage1.p_big=nan must be a finite number"),
        ("stage1.learning_rate=1e400", "stage1.learning_rate=inf must be a finite number"),
        ("full_holdout=7", "full_holdout=7 must be true or false"),
        ("budget.big=true", "budget.big=True must be a finite number"),
        ("seed=[", "quote the value"),
        ("router.alpha=!!python/name:os.system x", "has the tag 'tag:yaml.org,2002:python/name:os.system'"),
        ("router.alpha=!!binary aGk=", "has the tag"),
        ("router.alpha=!!bool maybe", "'maybe' is no bool"),
        ("router.pattern={1: a, b: c}", "words and numbers as keys"),
        ("output=a\nb", r"'a\nb' holds control characters"),
        ("output=\udcff", r"'\udcff' is no UTF-8"),
        ("compare.rows[a\nb].seed=1", r"'compare.rows[a\nb].seed' is no key"),
        ("compare.rows.a[b\udcff]=1", "is no UTF-8"),
        ("compare.over.output=[a, b]", "compare.over: output"),
        ("compare.over.seed=[1, 2, x]", "compare.rows.a: seed='x' must be a whole number"),
        (f"router{'.a' * 100}=1", "is no key"),
        ("a..b=1", "'a..b' is no key"),
        (".seed=1", "'.seed' is no key"),
        ("router.alpha=" + "[" * 10_000, "quote the value"),
        ("router.alpha={a: &a [*a]}", "more than"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_answered_on_one_line(typed, said):
    rows = ["compare.rows.a.full_holdout=false"] if typed.startswith("compare.over") else []
    assert said in refusal("tiny", *rows, typed)


def test_more_rows_than_anyone_can_train_are_refused_at_once():
    over = [f"compare.over[stage1.{key}]=[{', '.join(map(str, range(1, 400)))}]" for key in ("steps", "log_every")]
    assert "159,201 rows: there may be 10,000" in refusal("tiny", "compare.rows.a.seed=1", *over)


def test_a_value_gone_through_is_text_where_its_setting_is(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "compare:\n  rows: {a: {}, b: {router: {name: random}}}\n"
        "  over: {router.name: [fixed_best, random], seed: [3]}\n"
    )
    groups = load(str(tmp_path / "mine.yaml")).groups
    assert [*groups] == ['router.name="fixed_best", seed=3', 'router.name="random", seed=3']


BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"trainer: {{\n{BOMB.replace(chr(10), ',' + chr(10))}}}", "more than 1,000 values"),
        (f"trainer: {{\n{MERGES.replace(chr(10), ',' + chr(10))}}}", "more than 1,000 values"),
        ("trainer: &a {<<: *a}", "inside one another"),
        ("router: &a {name: random, b: *a}", "inside one another"),
        ("trainer: " + "{a: " * 90 + "1" + "}" * 90, "more than 50 keys or lists"),
        ("seed: !!python/object:os.system x", "has the tag"),
        ("!!set {seed, output}", "has the tag"),
        ("seed: 1\nseed: 2", "seed is there twice"),
        ("compare: {rows: {1: {}, '1': {}}}", "compare.rows.1 is there twice"),
        ("? [a, b]\n: 1", "a key must be a word"),
        ("compare: {rows: {'': {}}}", "'' is no name"),
        ('compare: {rows: {"a\\nb": {}}}', "control characters"),
        ("- seed", "must hold keys and values"),
        ("seed", "must hold keys and values"),
        ("seed:\t1\n\tseed: 2", "found a tab"),
        ("--- {seed: 1}\n--- {seed: 2}", "but found another document"),
        ("seed: \x07", "control characters"),
        (b"output: \xff", "can't decode byte 0xff"),
        ("seed: 1".encode("utf-16"), "can't decode byte"),
        ("base: [tiny]", "base=['tiny'] must be a recipe's name"),
        ("base: ???", "base=???"),
        ("output: ${oc.env:HOME}", "interpolation"),
    ],
)
def test_odd_files_are_answered_on_one_line_that_names_them(tmp_path, monkeypatch, content, said):
    monkeypatch.setattr(text, "MOST_VALUES", 1000)
    path = tmp_path / "odd.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    answer = refusal(path)
    assert str(path) in answer
    assert said in answer


def test_what_is_no_file_is_named_and_an_empty_one_holds_the_defaults(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(5 << 20)
    for name, said in {
        "folder": "Is a directory", "pipe": "is no file", "zero": "is no file", "loop": "Too many levels",
        "huge": "larger than 4,194,304 bytes", "x" * 300: "File name too long", "n\nl": "control characters",
    }.items():  # fmt: skip
        assert said in refusal(f"{tmp_path}/{name}.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert load(str(tmp_path / "empty.yaml")) == build({})


@pytest.mark.parametrize(
    "base", ["./mine.yaml", "{folder}/mine.yaml", "sub/../mine.yaml", "link.yaml", "sub/other.yaml"]
)
def test_a_recipe_that_is_its_own_base_is_named_however_it_is_spelled(tmp_path, monkeypatch, base):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other.yaml").write_text("base: ../mine.yaml\n")
    (tmp_path / "link.yaml").symlink_to("mine.yaml")
    (tmp_path / "mine.yaml").write_text(f"base: {base.format(folder=tmp_path)}\n")
    monkeypatch.chdir(tmp_path)
    for name in ("mine.yaml", f"{tmp_path}/mine.yaml"):
        assert "is its own base" in refusal(name)


def test_a_chain_of_bases_may_be_long(tmp_path):
    for index in range(500):
        (tmp_path / f"{index}.yaml").write_text(f"base: {index - 1}.yaml\n" if index else "base: tiny\nseed: 7\n")
    assert load(str(tmp_path / "499.yaml")).seed == 7


def test_anchors_and_merges_go_on_working(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "stage1: &stage {steps: 7, warmup_steps: 1}\nstage3: {<<: *stage, warmup_steps: 2}\n"
        "seed: &n 3\nbackbone: {seed: *n}\n"
    )
    recipe = load(str(tmp_path / "mine.yaml"))
    assert (recipe.stage3.steps, recipe.stage3.warmup_steps, recipe.stage1.warmup_steps) == (7, 2, 1)
    assert (recipe.seed, recipe.backbone.seed) == (3, 3)


NUMBERS = ["6e-3", "1e-05", "1.0e5", ".5", "5.", "1_000", "0x10", "-3", "1e+20", "+1.5E3", ".inf", "0b11", "1", "yes"]


def test_numbers_are_read_as_omegaconf_reads_them():
    for number in NUMBERS:
        ours, theirs = load("tiny", [f"compare.over.a=[{number}]"]), OmegaConf.from_dotlist([f"a={number}"]).a
        assert flatten(ours.settings)["compare.over"]["a"] == [theirs], number
        assert type(ours.compare.over["a"][0]) is type(theirs), number
