"""Tables of figures: their rows on all hold-outs, and why some are not there; as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from duo.report.paper.evidence import Evidence, Missing

Rows = list[dict[str, Any]]
"""Rows of a table: column to value."""
LACKS = "lacks"
LAYER = "layer_"
"""How the columns of layers begin."""


class Numbers(NamedTuple):
    """The table of one figure."""

    figure: str
    """As the paper numbers it."""
    title: str
    of: Callable[[Evidence, str], Rows]
    """Its rows on a hold-out; raises Missing."""


def collect(numbers: Numbers, evidence: Evidence) -> tuple[Rows, dict[str, str]]:
    """The rows on all hold-outs, and by hold-out why some are not there."""
    rows, missing = Rows(), {}
    for holdout in evidence.holdouts:
        try:
            found = numbers.of(evidence, holdout)
        except (Missing, LookupError) as error:
            found = [{LACKS: str(error)}]
        rows += [{"holdout": holdout} | row for row in found if LACKS not in row]
        if why := dict.fromkeys(row[LACKS] for row in found if LACKS in row):
            missing[holdout] = "; ".join(why)
    return rows, missing


def to_csv(rows: Rows) -> str:
    """Rows as CSV, columns in the order in which they come up."""
    text = io.StringIO()
    names = [*dict.fromkeys(name for row in rows for name in row)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def split_rows(rows: Rows, column: str) -> dict[str, Rows]:
    """Rows by the value of a column, in their order."""
    return {
        value: [row for row in rows if row[column] == value] for value in dict.fromkeys(row[column] for row in rows)
    }


def gather(parts: Iterable[Callable[[], Rows]]) -> Rows:
    """The rows of those parts of a figure that were measured, and for each other part one that says why it is not."""
    rows = Rows()
    for part in parts:
        try:
            rows += part()
        except (Missing, LookupError) as error:
            rows.append({LACKS: str(error)})
    return rows
