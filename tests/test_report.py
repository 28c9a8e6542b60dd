"""The report of the paper: its figures, its page, and what becomes of parts that fail or are stale."""

import csv
import json
import re

import numpy as np
import pytest
from conftest import command
from toy_papers import LAYERS, world

from duo.backbone import BIG
from duo.evaluation.intervals import jackknife
from duo.recipe import load
from duo.report.paper import write_report
from duo.report.paper.tables import FIGURES, collect
from duo.report.paper.words import tell

HOSTILE = "<script>window.hacked = 1</script> & <img src=x onerror=window.hacked=1> | `"
PAPER = ["2", "3", "4a", "4b", "4c", "5", "6", "7", "8", "9"]


@pytest.fixture(scope="module")
def evidence():
    return world().evidence()


@pytest.fixture(scope="module")
def written(evidence, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, evidence, {"command": HOSTILE}, {HOSTILE: HOSTILE})
    return folder


def rows_of(folder, figure):
    with (folder / "figures" / f"figure_{figure}.csv").open() as file:
        return [*csv.DictReader(file)]


def test_every_figure_of_the_paper_is_there_by_its_number_as_two_pictures_and_numbers(written):
    assert [numbers.figure for numbers in FIGURES] == PAPER
    names = {path.name for path in (written / "figures").iterdir()}
    assert names == {f"figure_{figure}.{kind}" for figure in PAPER for kind in ("png", "svg", "csv")}
    for text in (written / "report.md").read_text(), (written / "report.html").read_text():
        assert re.findall(r"(?:## |>)Figure (\w+)", text) == PAPER


def test_differences_in_a_figure_are_those_of_the_comparison(written, evidence):
    found = {(row["row"], int(row["big"])): row for row in rows_of(written, "4b")}
    rows = evidence.comparisons["budgets"].groups
    for name, title in (("committed", "oracle"), ("fixed_best", "fixed"), ("random", "random")):
        for big in range(LAYERS + 1):
            ours, all_big = rows[f"budget.big={big}"][name], rows[f"budget.big={LAYERS}"]["committed"]
            expected = jackknife(np.subtract, *(row.subset["code"].sequences for row in (ours, all_big)))
            told = found[title, big]
            assert float(told["difference"]) == pytest.approx(expected.value)
            assert (float(told["difference_low"]), float(told["difference_high"])) == pytest.approx(expected.interval)


def test_shares_in_a_figure_are_those_of_the_routes(written, evidence):
    trace = evidence.trace("oracle at few", "code")
    for row in rows_of(written, "2"):
        if row["panel"].startswith("a:"):
            used_B = trace.route_BTL[:, int(row["position"]), int(row["layer"])] == BIG
            assert float(row["share"]) == pytest.approx(used_B.mean(), abs=1e-4)


def test_sentences_are_made_of_the_rows_that_are_drawn(evidence):
    (numbers,) = [numbers for numbers in FIGURES if numbers.figure == "4b"]
    rows, _ = collect(numbers, evidence)
    best = min((row for row in rows if row["row"] == "oracle"), key=lambda row: row["loss"])
    assert f"loses least with {best['big']} big layers, {best['difference']:+.4f}" in tell("4b", rows)[0]


def test_the_same_evidence_gives_the_same_bytes(written, evidence, tmp_path):
    write_report(tmp_path, evidence, {"command": HOSTILE}, {HOSTILE: HOSTILE})
    for path in (path for path in written.rglob("*") if path.is_file()):
        assert path.read_bytes() == (tmp_path / path.relative_to(written)).read_bytes(), path.name


def test_the_page_is_itself_alone_and_shows_text_as_text(written):
    page = (written / "report.html").read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page
    assert not re.findall(r'(?:src|href)="(?!data:|figures/)', page)


def test_verdicts_are_written_with_their_numbers(written):
    claims = json.loads((written / "claims.json").read_text())
    assert {claim["verdict"] for claim in claims} == {"holds"}
    for claim in claims:
        assert claim["parts"]
        for part in claim["parts"]:
            low, high = part["interval"]
            assert low <= part["value"] <= high
            assert part["claimed"].get("above", low - 1) < low <= high < part["claimed"].get("below", high + 1)


def test_a_token_begins_a_line_if_it_holds_the_lines_first_sign():
    from duo.data.tokenizer import END
    from duo.evaluation.trace import Trace
    from duo.report.reproduce import mark_line_starts

    texts = [b"if", b"\n    ", b"\n", b"    ", b" x", b":\n\n  y", b"\xc3", b"\xa9", END.encode()]
    tokens = [1, 0, 4, 5, 4, 2, 3, 4, 0, 2, 6, 7, 0]
    tokens_BT, labels_BT = np.array([tokens[:-1]]), np.array([[*tokens[1:-1], -1]])
    trace = Trace(tokens_BT, labels_BT, *[np.zeros((1, len(tokens) - 1))] * 4)
    marked = mark_line_starts(trace, texts)[0]
    assert [texts[token] for token, mark in zip(labels_BT[0], marked, strict=True) if mark] == [
        b"if", b":\n\n  y", b" x", b"\xc3"
    ]  # fmt: skip


def test_what_is_missing_is_said_in_place_of_the_figure(tmp_path):
    lacking = world().evidence()
    del lacking.comparisons["dense"], lacking.traces["router at half"]
    write_report(tmp_path, lacking, {}, {})
    text = (tmp_path / "report.md").read_text()
    assert "not drawn: part dense is not there" in text
    assert "not drawn: no routes of router at half on code" in text
    assert not (tmp_path / "figures" / "figure_8.png").exists()


def test_a_phone_shows_the_page_without_moving_sideways(written, tmp_path):
    browsing = pytest.importorskip("browsing")
    with browsing.opened(tmp_path / "profile") as browser:
        for width, scheme in ((1280, "light"), (360, "dark")):
            browsing.view(browser, width=width, scheme=scheme)
            browser.get((written / "report.html").as_uri())
            assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
            assert browser.execute_script("return [...document.images].every(image => image.naturalWidth > 0)")
        assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(17, 20, 24)"
        assert browser.get_log("browser") == []


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
    router at half: {part: routers, row: softmax_budget, at: {budget.big: 1}}
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


def test_parts_have_what_the_report_says_for_all_and_what_they_say_for_themselves():
    recipe = load("reproduce_tiny", ["backbone.width=48", "seed=5"])
    for name, part in recipe.parts.items():
        assert (part.backbone.width, part.seed, part.stage3.steps) == (48, 5, 20), name
    assert recipe.parts["opt_70small_30big"].backbone.family == "opt"
    assert recipe.parts["dense"].stage1.steps == 30
    assert recipe.parts["budgets"].stage1.steps == 60


@pytest.mark.long
def test_the_tiny_report_shows_every_figure_and_judges_every_claim(tmp_path):
    printed = command("recipe=reproduce_tiny", f"output={tmp_path}/run", f"cache={tmp_path}/cache")
    assert "failed" not in printed
    assert {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")} == {f"figure_{name}" for name in PAPER}
    claims = json.loads((tmp_path / "run" / "claims.json").read_text())
    assert not [claim for claim in claims if not claim["parts"]]
