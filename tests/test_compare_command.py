"""`python -m duo.compare` as a user types it, and the results that it reads and writes."""

import io
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from msgspec import structs

import duo
from duo.compare import main, parse
from duo.evaluation.comparison import Comparison, compare_rows
from duo.evaluation.downstream import Downstream
from duo.evaluation.format import load_struct, save_struct
from duo.evaluation.result import Result
from duo.kept.runs import open_finished
from duo.recipe import load
from duo.report import figures
from duo.stages.output import hold_output
from duo.storage.store import Store

ROWS = """
base: RECIPE
compare:
  minus: [random]
  gap: [fixed_best, oracle]
  over: {budget.big: [1, 2]}
  rows:
    random: {router: {name: random}}
    mine: {}
    fixed_best: {router: {name: fixed_best}}
    oracle: {router: {name: oracle}, full_holdout: false}
"""


def shifted(score, by):
    """The score of a router that loses more in every sequence, and not the same more."""
    parts = score.sequences
    loss_ZB = parts.loss_ZB + by * parts.tokens_B * np.linspace(0.5, 1.5, len(parts.tokens_B))
    loss = float(loss_ZB.sum() / parts.tokens_B.sum())
    return structs.replace(score, loss=loss).made_of(parts._replace(loss_ZB=loss_ZB))


@pytest.fixture(scope="module")
def other(finished, tmp_path_factory):
    """A run like the finished one, whose router loses 0.1 nats more."""
    folder = shutil.copytree(finished / "run", tmp_path_factory.mktemp("other") / "other")
    result = load_struct(Result, folder, "result.json")
    worse = {part: {name: shifted(score, 0.1) for name, score in scores.items()} for part, scores in
             (("full", result.scores), ("subset", result.subset["router"]))}  # fmt: skip
    subset = result.subset | {"router": worse["subset"]}
    save_struct(structs.replace(result, scores=worse["full"], subset=subset), folder, "result.json")
    return folder


@pytest.fixture(scope="module")
def compared(finished, tmp_path_factory):
    """A comparison over two budgets with the rows of the finished run, as `python -m duo.run` would leave it."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "rows.yaml").write_text(ROWS.replace("RECIPE", f"{finished}/run/recipe.yaml"))
    recipe = load(str(folder / "rows.yaml"))
    (rows,) = open_finished(f"{finished}/run", "A").groups.values()
    names = {"random": "random", "mine": "softmax_budget", "fixed_best": "fixed_best", "oracle": "oracle"}
    group = compare_rows({name: rows[row] for name, row in names.items()}, ["random"], ["fixed_best", "oracle"])
    groups = dict.fromkeys(recipe.groups, group)
    with hold_output(recipe, "rows", folder / "run"):
        found = Comparison("rows", recipe.digest, groups, ["random"], ["fixed_best", "oracle"], [], {"seed": 0})
        save_struct(found, folder / "run", "result.json")
    return folder / "run"


def run(capsys, *arguments, status=0):
    assert main([*map(str, arguments)]) == status
    said = capsys.readouterr()
    if status:
        assert not said.out
        assert len(said.err.splitlines()) == (2 if status == 2 else 1)
    return said.err if status else said.out


def test_two_runs_are_shown_and_written_with_figures(finished, other, tmp_path, capsys):
    printed = run(capsys, finished / "run", f"worse={other}", f"output={tmp_path}/out")
    assert f"A = {finished}/run: tiny, 1 big and 0 skipped layers, backbone " in printed
    for name in ("softmax_budget (A)", "softmax_budget (worse)", "random", "fixed_best", "oracle"):
        assert name in printed
    assert "random (" not in printed
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert files == ["figures/differences.png", "result.json", "sequences.safetensors"]
    found = load_struct(Comparison, tmp_path / "out", "result.json")
    minus = found.groups[""]["softmax_budget (worse)"].beside["held"].minus["softmax_budget (A)"]
    assert minus.value == pytest.approx(0.1, rel=0.1)
    assert f"{minus.value:+.4f} ±" in printed
    assert {label: about["run"] for label, about in found.provenance["runs"].items()} == {
        "A": f"{finished}/run", "worse": str(other)
    }  # fmt: skip


def test_a_run_of_one_router_has_the_gap_that_its_own_result_says(finished, other, tmp_path, capsys):
    run(capsys, finished / "run", other, f"output={tmp_path}/out")
    found = load_struct(Comparison, tmp_path / "out", "result.json").groups[""]["softmax_budget (A)"].beside
    told = load_struct(Result, finished / "run", "result.json")
    assert {name: beside.gap_closed for name, beside in found.items()} == told.gap_closed
    assert {name: beside.gap_from for name, beside in found.items()} == told.gap_from


def test_a_comparison_is_beside_a_run_where_a_group_is_chosen(finished, other, compared, capsys):
    printed = run(capsys, other, compared, "group=budget.big=1", "minus=mine")
    full = printed.partition("full hold-out")[2].partition("subset")[0]
    assert [line.split()[0] for line in full.splitlines() if "±" in line][-1] == "softmax_budget"
    assert "minus mine" in printed
    assert "random (" not in printed
    twice = run(capsys, compared, shutil.copytree(compared, compared.parent / "again", dirs_exist_ok=True))
    assert "held, budget.big=2: full hold-out" in twice
    assert "(A)" not in twice


def test_an_entry_of_a_run_is_that_runs_row(finished, board, tmp_path, capsys):
    store = Store(board.location)
    heads = {digest: store.head("entries", digest)["name"] for digest in store.digests("entries")}
    digests = [digest[:8] for digest, name in heads.items() if name in ("softmax_budget", "fixed_best", "oracle")]
    place = f"leaderboard.store={board.location}"
    run(capsys, *digests, place, f"output={tmp_path}/out")
    run(capsys, finished / "run", *digests, place, f"output={tmp_path}/both")
    entries, both = (load_struct(Comparison, tmp_path / name, "result.json").groups[""] for name in ("out", "both"))
    assert {*entries} < {*both}  # none stands there twice
    for name, row in entries.items():
        assert row.scores.keys() == both[name].scores.keys()
        assert row.subset["held"].loss == both[name].subset["held"].loss
    assert "0 entries begin with 'ffff" in run(capsys, finished / "run", "ffffffffff", place, status=1)


def test_numbers_come_as_csv_and_tables_as_markdown(finished, other, tmp_path, capsys):
    runs = (finished / "run", other)
    table = pd.read_csv(io.StringIO(run(capsys, *runs, "--csv", f"output={tmp_path}/out")))
    again = duo.results(tmp_path / "out")
    assert table.loss.tolist() == pytest.approx(again.loss.tolist())
    assert table.row.tolist() == again.row.tolist()
    assert "minus_softmax_budget (A)" in table.columns
    printed = run(capsys, *runs, "--markdown")
    assert re.search(r"^\| softmax\\_budget \(A\) \| \d\.\d{4} ±", printed, re.MULTILINE)


def test_runs_have_letters_or_the_names_that_are_given():
    found = parse(["x", "new=y", "./a=b", "minus=r (A)", "minus=s", "output=o", "group=budget.big=4", "--csv"])
    assert found.runs == [("A", "x"), ("new", "y"), ("C", "./a=b")]
    assert found.minus == ["r (A)", "s"]
    assert found.settings == {"output": "o", "group": "budget.big=4"}
    assert found.format == "--csv"
    assert [label for label, _ in parse([f"./{n}" for n in range(28)]).runs][-3:] == ["Z", "R27", "R28"]


def break_recipe(folder, text):
    (folder / "recipe.yaml").write_text(text)


def old_schema(folder):
    told = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(told | {"schema": 5}))


def other_tokens(folder):
    told = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(told | {"tokens": "0" * 64}))


def on_tasks(folder):
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace("tasks: []", "tasks: [arc_easy]"))
    save_struct(Downstream("d", "0" * 64, {}, {}, {}, {}), folder, "result.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "result.json").unlink(), "lacks result.json: its run is not finished; the same"),
        (lambda folder: (folder / "result.json").write_text("{"), "result.json cannot be read"),
        (lambda folder: (folder / "sequences.safetensors").unlink(), "result.json cannot be read"),
        (old_schema, "it is of another duo: its schema is 5, this one writes 6"),
        (lambda folder: (folder / "recipe.yaml").unlink(), "holds no recipe.yaml: give a run's folder"),
        (lambda folder: break_recipe(folder, "base: first\nwhole: true\n"), "a run of an older duo .*full_holdout"),
        (lambda folder: break_recipe(folder, "base: [\n"), "recipe.yaml is not as it was written"),
        (lambda folder: break_recipe(folder, "base: reproduce_tiny\n"), "holds a report: give the folder"),
        (other_tokens, r"was scored on other tokens than .* \(its documents or its tokenizer were others"),
        (on_tasks, "holds accuracies on tasks, no losses"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_compared_is_named_in_one_line(finished, other, tmp_path, capsys, change, said):
    folder = shutil.copytree(other, tmp_path / "broken")
    change(folder)
    printed = run(capsys, finished / "run", folder, status=1)
    assert re.search(said, printed)
    assert f"{folder}" in printed


@pytest.mark.parametrize(
    ("typed", "status", "said"),
    [
        ([], 2, "Which runs, two or more?"), (["a"], 2, "Which runs"), (["a", "b", "--json"], 2, "Type: python -m"),
        (["a", "minus=b", "output=c"], 2, "Which runs"),
        (["a", "./a"], 1, "./a is given twice"), (["x=a", "x=b"], 1, "two runs are called x"),
        (["B=a", "b"], 1, "two runs are called B: give one of them another name, as in new=b"),
        (["nowhere", "b"], 1, "nowhere is neither a run's folder nor the beginning of an entry's digest"),
        (["a", "~no_such_user/b"], 1, "there is no user"),
    ],
)  # fmt: skip
def test_what_is_typed_wrong_is_told(typed, status, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert said in run(capsys, *typed, status=status)


def test_an_output_is_new_or_empty_and_whole_or_not_there(finished, other, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    said = run(capsys, finished / "run", other, f"output={tmp_path}/mine", status=1)
    assert "holds something already: give a new or empty folder" in said

    def stop(*_):
        raise ValueError("no more room")

    monkeypatch.setattr(figures, "draw_each", stop)
    assert main([f"{finished}/run", f"{other}", f"output={tmp_path}/out"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_help_says_how_it_is_typed(capsys):
    assert main(["--help"]) == 0
    assert "minus=ROW" in capsys.readouterr().out
