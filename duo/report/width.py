"""Tables that fit the screen: columns that matter least are left out, and what is too wide still goes below."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.table import Table

from duo.progress.start import speak
from duo.report.numbers import new_table

LEAST = (
    "perplexity", "bits/byte", "seeds", "µs", "passes", "time", "router size", "promised", "router FLOPs", "entry",
    "skip/small/big", "minus random", "minus above", "status", "to budget", "MFLOPs",
)  # fmt: skip
"""Columns that may be left out, the first one first: what stays longest is loss, differences, gap closed and cost."""

UNBOUNDED = 10_000
WIDTH = 165  # of tables in a file, where nobody says another


def print_fitting(parts: Iterable[Table | str], console: Console) -> None:
    """Prints tables as wide as the terminal, or as COLUMNS says; else each as wide as what it holds."""
    speak()
    limited = has_width(console)
    if limited:
        parts = fit(parts, console.width)
    else:
        console.width = WIDTH
    for part in parts:
        console.print(part, soft_wrap=not limited)


def has_width(console: Console) -> bool:
    """Whether somebody reads what is printed at the console's width: a terminal, or whoever says COLUMNS."""
    return console.is_terminal or os.environ.get("COLUMNS", "").isdigit()


def width_of(console: Console, otherwise: int) -> int:
    """Columns that somebody reads at, or so many where nobody says any."""
    return console.width if has_width(console) else otherwise


def fit(parts: Iterable[Table | str], width: int) -> Iterator[Table | str]:
    """The tables and sentences, no table wider than the screen where a name and one number have room on it.

    Behind them a sentence says which columns were left out, and how to see them.
    """
    left_out: dict[str, None] = {}
    for part in parts:
        if isinstance(part, Table):
            kept = _leave_out(part, width)
            gone = [column for place, column in enumerate(part.columns) if place not in kept and any(column.cells)]
            left_out |= dict.fromkeys(str(column.header) for column in gone)
            first, *more = _split(part, kept, width)
            yield _choose(part, first)
            yield from (_choose(part, some, goes_on=True) for some in more)
        else:
            yield part
    if left_out:
        names = ", ".join(" ".join(name.split()) for name in left_out)
        yield f"Left out at {width} columns: {names}. A wider window, or COLUMNS=200 in front, shows all."


def _leave_out(view: Table, width: int) -> list[int]:
    """Places of the columns that stay."""
    kept = [*range(len(view.columns))]
    if _width(view) > width:
        kept = [place for place in kept if place == 0 or any(view.columns[place].cells)]
    for name in LEAST:
        if _width(_choose(view, kept)) <= width:
            break
        kept = [place for place in kept if view.columns[place].header != name]
    return kept


def _split(view: Table, kept: list[int], width: int) -> Iterator[list[int]]:
    """The same columns in as many tables as it takes, each with the first one, which names its rows."""
    first, *rest = kept
    some = [first]
    for place in rest:
        if len(some) > 1 and _width(_choose(view, [*some, place])) > width:
            yield some
            some = [first]
        some.append(place)
    yield some


def _choose(view: Table, places: list[int], goes_on: bool = False) -> Table:
    """The table with some of its columns; one that goes on lacks the rows of which these say nothing."""
    title, columns = str(view.title), [view.columns[place] for place in places]
    chosen = new_table(f"{title.partition(';')[0]}, continued" if goes_on else title)
    for column in columns:
        chosen.add_column(
            column.header, justify=column.justify, no_wrap=True, min_width=column.min_width, max_width=column.max_width
        )
    for row, cells in zip(view.rows, zip(*(column.cells for column in columns), strict=True), strict=True):
        if any(cells[1:]) or not goes_on:
            chosen.add_row(*cells, end_section=row.end_section)
    return chosen


def _width(view: Table) -> int:
    """Cells that a table takes, but for its title, which may break its line."""
    title, view.title = view.title, None
    console = Console(width=UNBOUNDED)
    found = console.measure(view).maximum
    view.title = title
    return found
