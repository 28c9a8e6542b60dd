"""Tables fit the screen, lose no number that matters, and say what their marks mean."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table
from test_figures import toy_comparison

from duo.report.marks import explain_marks
from duo.report.numbers import new_table
from duo.report.tables import render
from duo.report.width import LEAST, fit, print_fitting

NAMES = ("loss", "minus fixed_best", "gap closed", "MFLOPs", *LEAST)


def table_of(headers, rows, cell="1.2345 ±0.1234"):
    view = new_table("text: the subset of searches, 2,304 tokens; gain over fixed_best")
    for header in ("", *headers):
        view.add_column(header, no_wrap=True)
    for row in range(rows):
        view.add_row(f"router_{row}", *([cell] * len(headers)))
    return view


def printed(part, width):
    console = Console(file=io.StringIO(), width=width, emoji=False, highlight=False, markup=False)
    console.print(part)
    return console.file.getvalue()


@settings(deadline=None, max_examples=50)
@given(
    headers=st.lists(st.sampled_from(NAMES), unique=True, min_size=1),
    rows=st.integers(1, 4),
    width=st.integers(28, 250),
)
def test_no_table_is_wider_than_the_screen_and_none_loses_what_matters(headers, rows, width):
    found = [*fit([table_of(headers, rows)], width)]
    parts = [part for part in found if isinstance(part, Table)]
    for part in parts:
        lines = printed(part, 1000).splitlines()
        head = next(place for place, line in enumerate(lines) if "──" in line)
        assert max(len(line.rstrip()) for line in lines[head:]) <= width
        assert "…" not in printed(part, width)
    shown = [str(column.header) for part in parts for column in part.columns[1:]]
    assert [header for header in headers if header not in LEAST] == [name for name in shown if name not in LEAST]
    left_out = {*headers} - {*shown}
    said = [part for part in found if isinstance(part, str) and part.startswith("Left out")]
    assert bool(said) is bool(left_out)
    assert all(header in said[0] for header in left_out)


@pytest.mark.parametrize(("columns", "most"), [("80", 80), ("40", 40), (None, 1000), ("many", 1000)])
def test_who_says_columns_gets_them_in_a_file_too(columns, most, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    console = Console(file=io.StringIO(), emoji=False, highlight=False, markup=False)
    print_fitting([table_of(NAMES, 2)], console)
    widest = max(map(len, console.file.getvalue().splitlines()))
    assert widest <= most
    assert (widest > 80) is (most == 1000)


def test_a_screen_that_is_wide_enough_shows_all():
    (only,) = fit([table_of(NAMES, 2)], 500)
    assert [column.header for column in only.columns] == ["", *NAMES]


def test_a_table_that_goes_on_says_so_and_lacks_rows_of_which_it_says_nothing():
    view = table_of(("loss", "gap closed"), 2)
    view.add_row("fixed_best", "1.2345 ±0.1234", "")
    first, second = fit([view], 28)
    assert [*first.columns[0].cells] == ["router_0", "router_1", "fixed_best"]
    assert [*second.columns[0].cells] == ["router_0", "router_1"]
    assert second.title == "text: the subset of searches, 2,304 tokens, continued"


def test_a_comparison_is_whole_on_a_narrow_screen():
    comparison = toy_comparison(["random", "fixed_best", "a_long_name_of_a_row"])
    narrow = "\n".join(printed(part, 60) for part in fit(render(comparison), 60))
    for name, row in next(iter(comparison.groups.values())).items():
        assert name in narrow
        assert all(f"{score.loss:.4f}" in narrow for score in row.shown.values())


@pytest.mark.parametrize(
    ("cell", "meaning"),
    [
        ("1.2 ±0.1", "± half the width"), ("4.5* +0.1", "* the lowest loss"), ("4.5= +0.1", "= those whose"),
        ("+1.4%!", "! not within its budget"), ("1.2 x?", "? more time"), ("-3.1%<", "< under 97 %"),
    ],
)  # fmt: skip
def test_a_mark_that_stands_in_a_table_is_explained(cell, meaning):
    (said,) = explain_marks([table_of(("loss",), 1, cell)])
    assert meaning in said


def test_where_there_is_no_mark_nothing_is_explained():
    assert [*explain_marks([table_of(("loss",), 1, "1.2")])] == []
