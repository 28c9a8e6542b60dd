"""A report is made of its parts: runs that are kept, traced and composed."""

import json

import numpy as np
import pytest
from conftest import command
from test_report import PAPER

from duo.recipe import load
from duo.run import run

REPORT = """
base: tiny
report:
  parts:
    budgets:
      base: oracle_sweep
      budget: {big: 1}
      compare: {over: {budget.big: [0, 1, 2]}, rows: {same: null}}
    routers:
      base: any_budget_sweep
      budget: {big: 1}
      compare: {over: {budget.big: [1]}, rows: {any_budget: null}}
  traces:
    all small: {part: budgets, row: committed, at: {budget.big: 0}}
    router at half: {part: routers, row: softmax_budget, at: {budget.big: 1}, on: sequences}
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """What the reports of this file train once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def report(small, tmp_path, cache):
    """Runs a small report; returns what it printed."""

    def run(*settings, check=0, output="report"):
        (tmp_path / "mine.yaml").write_text(REPORT)
        arguments = [f"recipe={tmp_path}/mine.yaml", *small[1:], "budget.big=1", f"cache={cache}"]
        return command(*arguments, f"output={tmp_path}/{output}", *settings, check=check)

    return run


def test_a_report_is_made_of_its_parts_and_the_second_start_makes_nothing_anew(report, tmp_path):
    first = report()
    assert "evaluation" in first
    assert str(tmp_path / "report" / "report.html") in first
    before = {path: path.read_bytes() for path in (tmp_path / "report").rglob("*.csv")}
    second = report()
    assert "training" not in second
    assert "evaluation" not in second
    assert before == {path: path.read_bytes() for path in (tmp_path / "report").rglob("*.csv")}


def test_a_part_that_fails_is_named_while_the_others_stand_and_a_later_start_makes_it(report, tmp_path, monkeypatch):
    from duo.stages import report as stage

    compare = stage.run_comparison

    def failing(part, name, *rest):
        if name == "routers":
            raise ValueError("the disk is <full>")
        return compare(part, name, *rest)

    monkeypatch.setattr(stage, "run_comparison", failing)
    printed = report(check=1)
    assert "failed  part routers: the disk is <full>" in printed
    page = (tmp_path / "report" / "report.html").read_text()
    assert "failed: part routers: the disk is &lt;full&gt;" in page
    assert 'id="figure-4b"' in page
    monkeypatch.undo()
    assert "failed" not in report()


def test_a_part_of_another_backbone_has_a_folder_of_its_own(report, tmp_path):
    report()
    parts = load("reproduce_tiny").parts, load("reproduce_tiny", ["backbone.seed=1"]).parts
    assert not {part.digest[:8] for part in parts[0].values()} & {part.digest[:8] for part in parts[1].values()}
    ours = load(f"{tmp_path}/mine.yaml", ["budget.big=1"]).parts
    assert {path.name.rpartition("-")[0] for path in (tmp_path / "report" / "parts").iterdir()} == {*ours}


def test_a_part_whose_router_has_changed_is_made_anew(report, tmp_path, monkeypatch):
    report()
    (result,) = (tmp_path / "report" / "parts").glob("routers-*/result.json")
    found = json.loads(result.read_text())
    found["provenance"]["sources"]["softmax_budget"] = "0" * 64
    result.write_text(json.dumps(found))
    assert "part  routers is made anew: router softmax_budget has changed" in report()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["report.parts.budgets.base=oracle_swep"], "report.parts.budgets: unknown recipe 'oracle_swep'"),
        (["report.parts.budgets.base=tiny"], "report.parts.budgets: a part is a comparison"),
        (["report.parts.budgets.budget.big=13"], "report.parts.budgets: budget big=13"),
        (["report.parts.budgets.budgt.big=3"], "report.parts.budgets: unknown key 'budgt'"),
        (["report.parts.new={budget: {big: 1}}"], "report.parts.new=.* must hold `base`"),
        (["report.traces.new={part: budgts, row: same}"], "report.traces.new.part: 'budgts'"),
        (["report.traces.new={part: budgets}"], "report.traces.new=.* must hold part and row"),
        (
            ["report.traces.new={part: budgets, row: same, on: sky}"],
            "report.traces.new.on='sky' must be one of subset, sequences, holdout",
        ),
    ],
)
def test_an_impossible_report_is_told_in_one_line(settings, said):
    with pytest.raises(ValueError, match=said):
        load("reproduce_tiny", settings).parts  # noqa: B018


def test_a_script_that_runs_a_report_as_one_run_is_told_how_to_make_it():
    with pytest.raises(ValueError, match=r"make it with duo\.run\.report"):
        run(load("reproduce_tiny"), "reproduce_tiny")


def test_parts_have_what_the_report_says_for_all_and_what_they_say_for_themselves():
    recipe = load("reproduce_tiny", ["backbone.width=48", "seed=5"])
    for name, part in recipe.parts.items():
        assert (part.backbone.width, part.seed, part.stage3.steps) == (48, 5, 20), name
    assert recipe.parts["opt_70small_30big"].backbone.family == "opt"
    assert recipe.parts["dense"].stage1.steps == 30
    assert recipe.parts["budgets"].stage1.steps == 60


def test_a_router_is_traced_from_every_seed_through_whole_sequences(report, tmp_path, cache, monkeypatch):
    from duo.report import reproduce as stage

    found, write = {}, stage.write_report
    monkeypatch.setattr(stage, "write_report", lambda *given: (found.update(given[1].traces), write(*given))[1])
    assert (
        "undecided below 5"
        in report("report.seeds=2", "data.subset_tokens=16", output="seeds")
        + (tmp_path / "seeds" / "report.md").read_text()
    )
    recipe = load(f"{tmp_path}/mine.yaml", ["report.seeds=2"])
    assert {part.compare.seeds for part in recipe.parts.values()} == {2}
    for holdout, (small,) in found["all small"].items():  # which learns nothing: other seeds are the same
        first, second = found["router at half"][holdout]
        assert not np.array_equal(first.route_BTL, second.route_BTL)
        assert np.array_equal(first.sequence_B, small.sequence_B)
        tokens = small.tokens_BT.shape[1]
        assert first.tokens_BT.shape[1] > tokens
        assert np.array_equal(first.at(slice(tokens)).tokens_BT, small.tokens_BT)


def test_a_part_may_keep_its_own_number_of_seeds():
    seeds = {name: part.compare.seeds for name, part in load("reproduce", ["report.seeds=5"]).parts.items()}
    assert (seeds["routers"], seeds["skips"], seeds["opt_70small_30big"], seeds["mixture_70small_30big"]) == (
        5,
        5,
        5,
        1,
    )
    assert load("reproduce_tiny", ["report.seeds=null"]).parts["routers"].compare.seeds == 1
    with pytest.raises(ValueError, match=r"report\.seeds=0 must be 1 or more"):
        load("reproduce_tiny", ["report.seeds=0"])


def test_a_dense_model_of_another_cost_than_half_of_the_modules_is_refused(report):
    dense = "{base: dense_twins, budget: {big: 1}, compare: {rows: {dense_equal_flops: {backbone: {big: 20}}}}}"
    said = report(f"report.parts.dense={dense}", "backbone.big=64", "backbone.small=8", check=1)
    assert "set report.parts.dense.compare.rows.dense_equal_flops.backbone.big=36" in said


@pytest.mark.parametrize("name", ["reproduce", "reproduce_reference", "reproduce_tiny"])
def test_shipped_reports_have_a_dense_model_that_costs_what_half_of_the_modules_cost(name):
    recipe = load(name)
    for rows in recipe.parts["dense"].groups.values():
        assert 2 * rows["dense_equal_flops"].backbone.big == recipe.backbone.big + recipe.backbone.small


@pytest.mark.long
def test_the_tiny_report_shows_every_figure_and_judges_every_claim(tmp_path):
    printed = command("recipe=reproduce_tiny", f"output={tmp_path}/run", f"cache={tmp_path}/cache")
    assert "failed" not in printed
    assert {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")} == {f"figure_{name}" for name in PAPER}
    claims = json.loads((tmp_path / "run" / "claims.json").read_text())
    lacking = {(claim["name"], claim["holdout"]) for claim in claims if not claim["parts"]}
    assert lacking == {("line_starts", "text"), ("ladder", "text"), ("ladder", "code")}
    assert not [part for claim in claims for part in claim["parts"] if part["why"] and part["verdict"] != "undecided"]
