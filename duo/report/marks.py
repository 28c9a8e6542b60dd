"""What the marks in tables mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rich.cells import cell_len
from rich.table import Table

MARKS = {
    r"±": "± half the width of a 95 % interval over documents, and over seeds where a row has several",
    r"\d[*=] ": "* the lowest loss of its column, = those whose interval to it reaches 0",
    r"%!$": "! not within its budget: over 1 % more, or a module whose budget is 0",
    r"%<$": "< under 97 % of its budget spent",
    r" x\?$": "? more time than the counted FLOPs can explain",
}
"""By the pattern of a cell that has it."""


def with_marks(parts: Iterable[Table | str]) -> Iterator[Table | str]:
    """Tables that are as wide as what they hold, and sentences; at the end, what marks in the tables mean."""
    parts = [*parts]
    yield from (_whole(part) if isinstance(part, Table) else part for part in parts)
    yield from explain_marks(part for part in parts if isinstance(part, Table))


def _whole(view: Table) -> Table:
    """The table, as wide as what it holds: too wide for a screen it breaks its lines, but cuts no number."""
    for column in view.columns:
        cells = (*str(column.header).split("\n"), *map(str, column.cells))
        column.min_width = max(map(cell_len, cells))
    return view


def explain_marks(tables: Iterable[Table]) -> Iterator[str]:
    """One sentence for all marks that stand in the tables; none where there are none."""
    cells = {str(cell) for table in tables for column in table.columns for cell in column.cells}
    found = [meaning for mark, meaning in MARKS.items() if any(re.search(mark, cell) for cell in cells)]
    if found:
        yield f"Marks: {'; '.join(found)}."
