"""Comparisons: rows beside one another on the same tokens, as they stand in `result.json`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from msgspec import UNSET, Struct, UnsetType, structs

from duo.evaluation.intervals import Estimate
from duo.evaluation.knowable import Known, compare_knowledge
from duo.evaluation.row import Beside, Row, choose_baseline, close_gap, subtract
from duo.evaluation.score import Score

Groups = dict[str, dict[str, Row]]
"""Rows by group (a combination of what the comparison goes over) and name."""


class Comparison(Struct, frozen=True):
    """Rows by group and name, and where they come from."""

    recipe: str
    """Name of the recipe."""
    recipe_digest: str
    """Identity of the run."""
    groups: Groups
    """Rows by group and name."""
    minus: list[str]
    """Rows that the others of their group are compared with."""
    gap: list[str]
    """The two rows between which gap closed is measured; empty: none."""
    foreign: list[str]
    """Hold-outs without a calibration set of their name."""
    provenance: dict[str, Any]
    """Commit, versions, device, seed, seconds and command."""

    def scored(self, group: str, holdout: str, subset: bool) -> dict[str, Score]:
        """The scores of a group's rows on one hold-out, lowest loss first."""
        rows = {name: row.subset if subset else row.scores for name, row in self.groups[group].items()}
        found = {name: scores[holdout] for name, scores in rows.items() if scores}
        return dict(sorted(found.items(), key=lambda item: item[1].loss))

    def searches(self, *groups: str) -> dict[str, str]:
        """How rows were searched for, by name, where any of these groups (none given: all) compares not all routes."""
        rows = [self.groups[group] for group in groups or self.groups]
        return {name: row.search for group in rows for name, row in group.items() if row.search}

    @property
    def holdouts(self) -> list[str]:
        """Names of the hold-outs."""
        return next(([*row.subset] for row in self.rows if row.subset), [])

    @property
    def searched(self) -> bool:
        """Whether some row is scored on the subset alone, so that rows can only be compared there."""
        return not all(row.scores or row.failed for row in self.rows)

    @property
    def rows(self) -> list[Row]:
        """The rows of all groups."""
        return [row for rows in self.groups.values() for row in rows.values()]


def compare_rows(
    rows: dict[str, Row],
    minus: list[str],
    gap: list[str],
    knowledge: Mapping[str, str] | None = None,
    foreign: Collection[str] = (),
) -> dict[str, Row]:
    """The rows of one group, each with what its place beside the others says of it.

    Args:
        minus: rows that are subtracted from all.
        gap: the rows of the best fixed pattern and of the oracle; may be empty.
        knowledge: by row, the row whose prediction says what it knows; needs a gap.
        foreign: hold-outs without a calibration set of their name, whose gap may begin at another row of `minus`.
    """
    known_by = knowledge or {}
    return {
        name: structs.replace(
            row,
            beside={
                holdout: structs.replace(
                    place_beside(rows, name, holdout, minus, gap, foreign),
                    known=_known(rows, name, holdout, gap, known_by.get(name)),
                )
                for holdout in row.subset
            },
        )
        for name, row in rows.items()
    }


def _known(rows: dict[str, Row], name: str, holdout: str, gap: list[str], by: str | None) -> Known | UnsetType:
    """What a row knows by another row's prediction; unset where nobody says, or one of the rows failed."""
    if by is None or not (knowledge := rows[by].knowledge) or rows[gap[0]].failed:
        return UNSET
    chosen, fixed = (rows[row].subset[holdout].sequences for row in (name, gap[0]))
    return compare_knowledge(chosen, fixed, knowledge[holdout], by)


def place_beside(
    rows: dict[str, Row], name: str, holdout: str, minus: list[str], gap: list[str], foreign: Collection[str]
) -> Beside:
    """What a row's place beside the others says of it, on one hold-out; arguments as in `compare_rows`."""
    there = [other for other in minus if not rows[other].failed]
    differences = {other: subtract(rows[name], rows[other], holdout) for other in there}
    if not gap or any(rows[end].failed for end in gap):
        return Beside(differences, Estimate(None, None))
    losses = {other: rows[other].subset[holdout].loss for other in (gap[0], *there) if not rows[other].bound}
    begin = choose_baseline(losses, gap[0], holdout not in foreign)
    return Beside(differences, close_gap(rows[name], rows[begin], rows[gap[1]], holdout), begin)
