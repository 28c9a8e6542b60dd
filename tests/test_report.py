"""The report of the paper: its figures, its page, and what becomes of parts that fail or are stale."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import command
from toy_papers import LAYERS, world

from duo.backbone import BIG
from duo.evaluation.difficulty import Losses, hard_without_potential, hardest
from duo.evaluation.intervals import jackknife
from duo.recipe import load
from duo.report.paper import write_report
from duo.report.paper.draw_tokens import draw_difficulty
from duo.report.paper.shares import without_potential
from duo.report.paper.tables import FIGURES, collect
from duo.report.paper.words import stands_on, tell
from duo.report.reproduce import find_origins
from duo.run import run

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


def test_figures_that_stand_on_other_backbones_say_so(evidence):
    published = load("reproduce", [f"leaderboard.backbone={'0' * 64}"])
    origins = find_origins(published)
    assert not {"budgets", "routers", "schedules", "skips", "router at half"} & {*origins}
    for figure, said in (("7", "trained here: llama"), ("8", "500 steps, p_big 0"), ("9", "trained here: opt")):
        told = stands_on(figure, replace(evidence, origins=origins, traces=published.report.traces))
        assert said in told[0], told
    assert not stands_on("2", replace(evidence, origins=origins))
    assert {"dense", "mixture_70small_30big"} <= {
        *find_origins(load("reproduce"))
    }  # trained otherwise than the report's


def test_captions_say_what_intervals_are_and_over_how_many_sequences_shares_are(written):
    sections = dict(re.findall(r"## Figure (\w+)\n(.*?)(?=\n## )", (written / "report.md").read_text(), re.DOTALL))
    for figure in ("4a", "4b", "4c", "8"):
        assert "are 95% intervals over documents" in sections[figure]
    assert "and over seeds" in sections["8"]
    for figure in ("2", "3", "9"):
        assert "averages over 40 sequences" in sections[figure]


def test_figure_6_has_a_scale_for_each_panel(evidence):
    (numbers,) = [numbers for numbers in FIGURES if numbers.figure == "6"]
    figure = draw_difficulty(collect(numbers, evidence)[0])
    assert [axis.get_ylabel() for axis in figure.axes].count("nats") == 2


def test_tokens_without_potential_are_those_of_the_difficulty_command(evidence):
    """Where losses are tied, too."""
    small, oracle = evidence.trace("all small", "code"), evidence.trace("oracle at half", "code")
    small, oracle = (trace._replace(loss_BT=np.round(trace.loss_BT)) for trace in (small, oracle))
    losses = Losses(*(trace.loss_BT[small.scored_BT] for trace in (small, small, oracle)))
    found = without_potential(small, np.ones(len(small.document_B), dtype=bool), oracle)
    assert found == len(hard_without_potential(losses)) / len(hardest(losses.small_N))


@pytest.mark.long
def test_the_tiny_report_shows_every_figure_and_judges_every_claim(tmp_path):
    printed = command("recipe=reproduce_tiny", f"output={tmp_path}/run", f"cache={tmp_path}/cache")
    assert "failed" not in printed
    assert {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")} == {f"figure_{name}" for name in PAPER}
    claims = json.loads((tmp_path / "run" / "claims.json").read_text())
    lacking = {(claim["name"], claim["holdout"]) for claim in claims if not claim["parts"]}
    assert lacking == {("line_starts", "text"), ("ladder", "text"), ("ladder", "code")}
    assert not [part for claim in claims for part in claim["parts"] if part["why"] and part["verdict"] != "undecided"]
