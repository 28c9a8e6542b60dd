"""What lines gain on one another and on the gap."""

from __future__ import annotations

from duo.evaluation.intervals import Estimate
from duo.evaluation.row import Row, close_gap, subtract
from duo.leaderboard.entry.entry import Entry
from duo.leaderboard.entry.rules import is_reference

OWN = "duo-llm"  # the package whose rows the others are measured by
BASELINES = {"fixed_best": "deployable", "oracle": "bound"}

Group = list[Entry]
"""Entries that differ in nothing but their seed."""


def kind_of(row: Row) -> str:
    """`deployable`, `bound` or `reference`."""
    return "bound" if row.bound else "reference" if is_reference(row) else "deployable"


def gains_above(rows: list[Row], holdout: str) -> dict[int, Estimate]:
    """By place, loss minus that of the row above on the same tokens."""
    return {place: subtract(rows[place], rows[place - 1], holdout) for place in range(1, len(rows))}


def gaps_closed(rows: list[Row], baselines: dict[str, int], holdout: str) -> dict[int, Estimate]:
    """By place, the gap that a row closes between the best fixed pattern and the oracle, where the track has both."""
    if len(baselines) < len(BASELINES):
        return {}
    fixed, oracle = (rows[baselines[name]] for name in BASELINES)
    return {place: close_gap(row, fixed, oracle, holdout) for place, row in enumerate(rows) if row is not fixed}


def find_baselines(rows: list[tuple[Group, Row]], statuses: dict[str, int]) -> dict[str, int]:
    """Places of the best fixed pattern and of the oracle, by name, where the track has them."""
    found = {name: _baseline(rows, name, kind, statuses) for name, kind in BASELINES.items()}
    return {name: place for name, place in found.items() if place is not None}


def _baseline(rows: list[tuple[Group, Row]], name: str, kind: str, statuses: dict[str, int]) -> int | None:
    """Where duo's own router of that name and kind stands, with its default options; of several, the best executed."""
    found = [
        (statuses.get(group[0].digest, 0), place)
        for place, (group, row) in enumerate(rows)
        if (row.router, row.options, kind_of(row), group[0].head.package.name) == (name, {}, kind, OWN)
    ]
    return max(found, key=lambda item: (item[0], -item[1]))[1] if found else None
