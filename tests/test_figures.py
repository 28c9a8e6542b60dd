"""Tables and figures of whatever names a user chose; no figure costs a result."""

import io
import logging

import numpy as np
import pytest
from conftest import command
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.cells import cell_len
from rich.console import Console

from duo.evaluation.comparison import Comparison, compare_rows
from duo.evaluation.intervals import Estimate, Sequences, estimate_loss
from duo.evaluation.row import Row
from duo.evaluation.score import Score
from duo.report import canvas, figures
from duo.report.names import printable
from duo.report.tables import render

ODD = [
    "a$b^$ll",
    r"\frac{$",
    "_hidden",
    "two\nlines",
    "\x1b[31mred",
    "😀🏳️‍🌈",
    "مرحبا\u202e",
    "漢字",
    "[bold]",
    "long" * 50,
    "%s {x}",
]


def toy_score(loss, documents=6):
    generator = np.random.default_rng(int(loss * 1000))
    document_B = np.arange(6) % documents
    sequences = Sequences(
        loss * 8 + generator.random((1, 6)), np.full(6, 8), generator.random((8, 3, 3)), np.arange(6), document_B
    )  # fmt: skip
    return Score(
        loss=loss, loss_interval=estimate_loss(sequences).interval, perplexity=2.0, bits_per_byte=1.0, tokens=48,
        documents=documents, share={"skip": 0.25, "small": 0.25, "big": 0.5}, flops_per_token=2e6,
        budget_flops_per_token=2e6,
        router_flops_per_token=1e4, within_budget=True, passes=0.0, labels_consulted=False, seconds_per_token=1e-4,
        promised_loss=loss + 1, time_ratio=1.1, unexplained_time=False, router_parameters=1000, router_bytes=4000,
    ).made_of(sequences)  # fmt: skip


def toy_comparison(names, groups=("",), holdouts=("held",), documents=6):
    """A comparison with rows of those names, all compared with the first one."""

    def rows(add):
        budget = {"skip": 0.0, "small": 1.0, "big": 2.0}
        scores = [
            {hold: toy_score(3 + add + place / 100, documents) for hold in holdouts} for place in range(len(names))
        ]
        return {
            name: Row(
                "random",
                {},
                budget,
                scores=score,
                subset=score,
                collapsed={hold: ["layer 1 never uses big"] for hold in holdouts},
            )
            for name, score in zip(names, scores, strict=True)
        }

    found = {group: compare_rows(rows(add), [names[0]], []) for add, group in enumerate(groups)}
    return Comparison("toy", "0" * 64, found, [names[0]], [], [], {})


def shown(comparison):
    console = Console(highlight=False, markup=False, soft_wrap=True, file=io.StringIO(), width=165, emoji=False)
    for part in render(comparison):
        console.print(part)
    return console.file.getvalue()


@pytest.mark.parametrize("groups", [("",), ('router.x="a$b^$"', 'router.x="\\n"')])
def test_rows_and_hold_outs_of_any_name_are_drawn_as_they_are_called(tmp_path, caplog, recwarn, groups):
    figures.draw(toy_comparison(ODD, groups, holdouts=(ODD[0], ODD[3])), {}, tmp_path)
    assert not caplog.records
    assert not [str(warning.message) for warning in recwarn]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["big_share.png", "loss.png"]


def test_a_name_that_begins_with_an_underscore_is_in_the_legend():
    figure = figures.loss_across(toy_comparison(["_hidden", "seen"], ("a=1", "a=2")))
    entries = [text.get_text().strip() for text in figure.axes[0].get_legend().get_texts()]
    assert {"_hidden", "seen"} <= {*entries}


def test_a_figure_that_cannot_be_drawn_is_reported_and_the_others_go_on(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no\nglyph")

    monkeypatch.setattr(figures, "rows_by_loss", fail)
    figures.draw(toy_comparison(["a", "b"]), {}, tmp_path)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"figures  {tmp_path}/figures/loss.png cannot be drawn: RuntimeError('no" in record.getMessage()
    assert len(record.getMessage().splitlines()) == 1
    assert (tmp_path / "figures" / "big_share.png").exists()


def test_figures_that_are_there_are_not_drawn_again(tmp_path):
    comparison = toy_comparison(["a", "b"])
    figures.draw(comparison, {}, tmp_path)
    (tmp_path / "figures" / "loss.png").unlink()
    before = (tmp_path / "figures" / "big_share.png").stat().st_mtime_ns
    figures.draw(comparison, {}, tmp_path)
    assert (tmp_path / "figures" / "loss.png").exists()
    assert (tmp_path / "figures" / "big_share.png").stat().st_mtime_ns == before


def test_figures_of_thousands_of_rows_have_a_size_that_can_be_drawn():
    figure, axes = canvas.new_panels(2, 3, width=0.35 * 10_000, height=7)
    assert (figure.get_size_inches().tolist(), axes.shape) == ([100, 7], (2, 3))


def test_no_number_is_cut_however_many_rows_stand_beside_one_another():
    names = [f"row {index}" for index in range(12)]
    printed = shown(toy_comparison(names, ("budget.big=4", "budget.big=5")))
    assert "…" not in printed
    (line,) = [line for line in printed.splitlines() if line.strip().startswith("budget.big=5") and "±" in line][:1]
    assert line.count("±") == len(names)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True))
def test_a_row_takes_one_line_of_a_table_whatever_it_is_called(names):
    printed = shown(toy_comparison(names))
    assert all(character.isprintable() for line in printed.split("\n") for character in line)
    as_wide = [str(place).ljust(cell_len(printable(name)), ".") for place, name in enumerate(names)]
    plain = shown(toy_comparison(as_wide))  # a head of a column has a second line where the name is long
    assert printed.count("\n") == plain.count("\n")


@given(st.text())
def test_a_printable_name_is_short_and_stays_the_same_where_it_was_printable(name):
    assert printable(name).isprintable()
    assert len(printable(name)) <= 48
    assert printable(name) == name or not name.isprintable() or len(name) > 48


def test_a_result_is_there_though_the_disk_is_full_for_figures_which_are_drawn_later(
    finished, small, tmp_path, monkeypatch
):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    arguments = [*small, f"output={tmp_path}/run", f"cache={finished}/cache"]
    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", fail)
        printed = command(*arguments)
    assert printed.count("cannot be drawn: OSError(28, 'No space left on device')") == 3
    result = (tmp_path / "run" / "result.json").read_bytes()
    again = command(*arguments)
    names = ["big_share.png", "loss.png", "training_loss.png"]
    assert sorted(path.name for path in (tmp_path / "run" / "figures").glob("*.png")) == names
    assert "evaluation" not in again
    assert (tmp_path / "run" / "result.json").read_bytes() == result


def test_curves_that_cannot_be_read_cost_no_more_than_their_figure(finished, tmp_path, caplog):
    from duo.stages.output import load_curves

    assert [*load_curves(finished / "run")] == ["stage 1", "stage 3"]
    assert load_curves(tmp_path) == {}
    (tmp_path / "curves.json").write_text('{"stage 1": 3}')
    assert load_curves(tmp_path) == {}
    assert "curves.json cannot be read" in caplog.text


def test_an_estimate_needs_no_interval():
    assert canvas.error_bars([Estimate(None, None)]).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("groups", [("",), ("a=1", "a=2")])
def test_a_hold_out_of_one_document_is_shown_and_drawn_without_intervals(tmp_path, caplog, groups):
    comparison = toy_comparison(["a", "b"], groups, documents=1)
    assert "±" not in shown(comparison)
    assert "48 tokens, 1 document: so few that intervals are guesses" in shown(comparison)
    assert "±" in shown(toy_comparison(["a", "b"], groups))
    figures.draw(comparison, {}, tmp_path)
    assert not caplog.records
