"""The report of the paper: its figures, its page, and what its captions say."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from toy_papers import LAYERS, world

from duo.backbone import BIG
from duo.evaluation.difficulty import Losses, hard_without_potential, hardest
from duo.evaluation.intervals import jackknife
from duo.recipe import load
from duo.report.paper import STATEMENTS, document, write_report
from duo.report.paper.draw_losses import draw_rows
from duo.report.paper.draw_routes import draw_mixtures, draw_sequences
from duo.report.paper.draw_tokens import draw_difficulty
from duo.report.paper.rows import LAYER, collect, to_csv
from duo.report.paper.shares import without_potential
from duo.report.paper.tables import FIGURES
from duo.report.paper.words import stands_on, tell
from duo.report.reproduce import find_origins

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
            used_BL = trace.route_BTL[:, int(row["position"])] == BIG
            told_L = [float(row[f"{LAYER}{layer}"]) for layer in range(LAYERS)]
            assert told_L == pytest.approx(used_BL.mean(0), abs=1e-3)


def test_shares_of_mixtures_are_those_of_the_routes_by_layer_and_by_position(written, evidence):
    rows, places = rows_of(written, "9"), {"layer": 2, "position": 1}
    for row in rows:
        route_BTL = evidence.trace(row["panel"], "code").route_BTL
        used = np.take(route_BTL, int(row["at"]), places[row["by"]])
        told = [float(row[module]) for module in ("skip", "small", "big")]
        assert told == pytest.approx([(used == module).mean() for module in range(3)], abs=1e-4)
    assert {(row["by"], int(row["at"])) for row in rows} == {("layer", at) for at in range(LAYERS)} | {
        ("position", at) for at in range(evidence.trace(rows[0]["panel"], "code").route_BTL.shape[1])
    }


def test_the_seeds_of_a_training_are_shown_beside_their_mean(written):
    for row in rows_of(written, "8"):
        of_seeds = [float(value) for value in row["differences"].split()]
        assert len(of_seeds) == int(row["seeds"]) == 5
        assert np.mean(of_seeds) == pytest.approx(float(row["difference"]), abs=1e-4)


def test_sentences_are_made_of_the_rows_that_are_drawn(evidence):
    (numbers,) = [numbers for numbers in FIGURES if numbers.figure == "4b"]
    rows, _ = collect(numbers, evidence)
    best = min((row for row in rows if row["row"] == "oracle"), key=lambda row: row["loss"])
    assert f"loses least with {best['big']} big layers, {best['difference']:+.4f}" in " ".join(tell("4b", rows))


def test_the_same_evidence_gives_the_same_bytes(written, evidence, tmp_path):
    write_report(tmp_path, evidence, {"command": HOSTILE}, {HOSTILE: HOSTILE})
    for path in (path for path in written.rglob("*") if path.is_file()):
        assert path.read_bytes() == (tmp_path / path.relative_to(written)).read_bytes(), path.name


def test_a_figure_is_drawn_again_where_its_numbers_or_what_draws_it_have_changed(evidence, tmp_path):
    drawn = []

    def note(figure):
        return lambda rows: drawn.append(figure) or draw_rows(rows)

    (numbers,) = [numbers for numbers in FIGURES if numbers.figure == "4c"]
    rows, _ = collect(numbers, evidence)
    png, told = tmp_path / "figure_4c.png", to_csv(rows)
    document._draw_one(png, told, rows, draw_rows)
    for changed, draw in ((told, note("by another")), (told.replace("constant", "steady"), draw_rows)):
        before = png.stat().st_mtime_ns
        document._draw_one(png, changed, rows, draw)
        assert png.stat().st_mtime_ns > before
    assert drawn == ["by another"]
    before = png.stat().st_mtime_ns
    document._draw_one(png, changed, rows, draw_rows)
    assert png.stat().st_mtime_ns == before


def test_the_page_is_itself_alone_and_shows_text_as_text(written):
    page = (written / "report.html").read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page
    assert not re.findall(r'(?:src|href)="(?!data:|figures/)', page)
    assert all((written / name).exists() for name in re.findall(r'href="(figures/[^"]*)"', page))


def test_what_is_undecided_says_whether_more_trainings_would_help(tmp_path):
    few = world(seeds=1).evidence()
    del few.comparisons["dense"]
    write_report(tmp_path, few, {}, {})
    told = {line.split(" | ")[0].strip("| "): line for line in (tmp_path / "report.md").read_text().splitlines()}
    words = {said.name: told[said.says].rpartition(" | ")[2].strip("| ") for said in STATEMENTS}
    assert words["near_dense"] == "undecided: not measured"
    assert words["router_near_fixed"] == "undecided: too few trainings"
    assert words["interior_minimum"] == "holds"
    page = (tmp_path / "report.html").read_text()
    assert ["? undecided: not measured" in page, "? undecided: too few trainings" in page] == [True, True]


def test_verdicts_are_written_with_their_numbers(written):
    claims = json.loads((written / "claims.json").read_text())
    assert {claim["verdict"] for claim in claims} == {"holds"}
    for claim in claims:
        assert claim["parts"]
        for part in claim["parts"]:
            low, high = part["interval"]
            assert low <= part["value"] <= high
            assert part["claimed"].get("above", low - 1) < low <= high < part["claimed"].get("below", high + 1)


@pytest.mark.parametrize(("draw", "figure", "panels"), [(draw_sequences, "7", 1), (draw_mixtures, "9", 2)])
def test_a_mixture_that_one_hold_out_lacks_is_drawn_on_the_other_under_its_letter(draw, figure, panels, evidence):
    (numbers,) = [numbers for numbers in FIGURES if numbers.figure == figure]
    rows, _ = collect(numbers, evidence)
    first = rows[0]["panel"]
    lacking = rows + [row | {"holdout": "text"} for row in rows if row["panel"] != first]
    drawn = draw(lacking)
    titles = [axis.get_title() for axis in drawn.axes if axis.get_title()]
    of_text = [title for title in titles if title.endswith(", text")]
    mixtures = len({row["panel"] for row in rows})
    assert (len(titles), len(of_text)) == (2 * mixtures - 1, mixtures - 1)
    assert [title[:2] for title in of_text] == ["b:", "c:"][: mixtures - 1]
    assert len(drawn.axes) == panels * len(titles)


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
    page = (written / "report.html").read_text()
    page = re.sub(r'(<td data-holdout="code">.*?</td>)', r"\1\1", page, flags=re.DOTALL)  # as of two hold-outs
    (written / "few.html").write_text(page.replace("\u2713 holds", "? undecided: too few trainings"))
    with browsing.opened(tmp_path / "profile") as browser:
        for width, scheme in ((1280, "light"), (360, "dark")):
            browsing.view(browser, width=width, scheme=scheme)
            browser.get((written / "few.html").as_uri())
            assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
            fits = "return [...document.querySelectorAll('.wide')].every(part => part.scrollWidth <= part.clientWidth)"
            assert browser.execute_script(fits)
            assert browser.execute_script("return [...document.images].every(image => image.naturalWidth > 0)")
        assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(17, 20, 24)"
        assert browser.get_log("browser") == []


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
