"""What lines gain on one another and on the gap, all of a track at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from duo.evaluation.bootstrap import Estimate, Sequences, gaps_between, means_of
from duo.evaluation.row import Row, pair_scores
from duo.evaluation.score import Score
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
    pairs = {place: pair_scores(rows[place], rows[place - 1], holdout) for place in range(1, len(rows))}
    return _by_tokens(pairs, _differences)


def gaps_closed(rows: list[Row], baselines: dict[str, int], holdout: str) -> dict[int, Estimate]:
    """By place, the gap that a row closes between the best fixed pattern and the oracle, where the track has both."""
    if len(baselines) < len(BASELINES):
        return {}
    fixed, oracle = (rows[baselines[name]] for name in BASELINES)
    above, below = fixed.subset[holdout].sequences, oracle.subset[holdout].sequences
    pairs = {place: pair_scores(row, fixed, holdout) for place, row in enumerate(rows) if row is not fixed}
    return _by_tokens(pairs, lambda found: gaps_between([ours for ours, _ in found], found[0][1], above, below))


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


def _by_tokens(
    pairs: dict[int, tuple[Score, Score]], estimates: Callable[[list[tuple[Sequences, Sequences]]], list[Estimate]]
) -> dict[int, Estimate]:
    """Estimates of all pairs, those on the same tokens in one go."""
    found: dict[int, Estimate] = {}
    for tokens in {ours.tokens for ours, _ in pairs.values()}:
        places = [place for place, (ours, _) in pairs.items() if ours.tokens == tokens]
        parts = [(pairs[place][0].sequences, pairs[place][1].sequences) for place in places]
        found |= dict(zip(places, estimates(parts), strict=True))
    return found


def _differences(pairs: list[tuple[Sequences, Sequences]]) -> list[Estimate]:
    return means_of(np.stack([ours.loss_B - theirs.loss_B for ours, theirs in pairs], axis=1), pairs[0][0].tokens_B)
