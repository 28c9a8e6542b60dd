"""What lines gain on one another and on the gap."""

from __future__ import annotations

from duo.evaluation.intervals import Estimate, estimate_gap_closed
from duo.evaluation.row import Row
from duo.evaluation.score import Score, difference
from duo.leaderboard.entry.entry import Entry
from duo.leaderboard.entry.rules import is_reference

OWN = "duo-llm"  # the package whose rows the others are measured by
BASELINES = {"fixed_best": "deployable", "oracle": "bound"}

Group = list[Entry]
"""Entries that differ in nothing but their seed."""


def kind_of(row: Row) -> str:
    """`deployable`, `bound` or `reference`."""
    return "bound" if row.bound else "reference" if is_reference(row) else "deployable"


def scores_of(rows: list[Row], holdout: str, subset: bool) -> dict[int, Score]:
    """By place, the scores of rows on a hold-out, or on its subset of searches: all of them on the same tokens."""
    found = {place: row.subset if subset else row.scores for place, row in enumerate(rows)}
    return {place: scores[holdout] for place, scores in found.items() if holdout in scores}


def gains_above(scores: dict[int, Score], ranked: int) -> dict[int, Estimate]:
    """By place, loss minus that of the row above, for rows that have a rank."""
    return {place: difference(scores[place], scores[place - 1]) for place in range(1, ranked)}


def gains_on(scores: dict[int, Score], other: int | None) -> dict[int, Estimate]:
    """By place, loss minus that of one row; none where that is not there."""
    if other not in scores:
        return {}
    return {place: difference(score, scores[other]) for place, score in scores.items() if place != other}


def gaps_closed(scores: dict[int, Score], fixed: int | None, oracle: int | None) -> dict[int, Estimate]:
    """By place, the gap that a row closes between the best fixed pattern and the oracle, where both are there."""
    if fixed not in scores or oracle not in scores:
        return {}
    ends = scores[fixed].sequences, scores[oracle].sequences
    return {place: estimate_gap_closed(score.sequences, *ends) for place, score in scores.items() if place != fixed}


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
