"""What the marks in tables mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rich.table import Table

MARKS = {
    r"±": "± half the width of a 95 % interval over documents, and over seeds where a row has several",
    r"\d[*=] ": "* the lowest loss of its column, = those whose interval to it reaches 0",
    r"%!$": "! not within its budget: over 1 % more, or a module whose budget is 0",
    r"%<$": "< under 97 % of its budget spent",
    r" x\?$": "? more time than the counted FLOPs can explain",
}
"""By the pattern of a cell that has it."""


def explain_marks(tables: Iterable[Table]) -> Iterator[str]:
    """One sentence for all marks that stand in the tables; none where there are none."""
    cells = {str(cell) for table in tables for column in table.columns for cell in column.cells}
    found = [meaning for mark, meaning in MARKS.items() if any(re.search(mark, cell) for cell in cells)]
    if found:
        yield f"Marks: {'; '.join(found)}."
