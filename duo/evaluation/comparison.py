"""Comparisons: rows beside one another on the same tokens, to and from `result.json`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from duo.evaluation.bootstrap import Estimate
from duo.evaluation.format import read_json, save_json
from duo.evaluation.row import Row, gap_closed, minus
from duo.evaluation.score import Score


@dataclass(frozen=True)
class Comparison:
    """Rows by group and name, and where they come from."""

    recipe: str
    """Name of the recipe."""
    recipe_digest: str
    """Identity of the run."""
    groups: dict[str, dict[str, Row]]
    """Rows by group (a combination of what the comparison goes over) and name."""
    minus: list[str]
    """Rows that the others of their group are compared with."""
    gap: list[str]
    """The two rows between which gap closed is measured; empty: none."""
    provenance: dict[str, Any]
    """Commit, versions, device, seed, seconds and command."""

    def scored(self, group: str, holdout: str, subset: bool) -> dict[str, Score]:
        """The scores of a group's rows on one hold-out, lowest loss first."""
        rows = {name: row.subset if subset else row.scores for name, row in self.groups[group].items()}
        found = {name: scores[holdout] for name, scores in rows.items() if scores}
        return dict(sorted(found.items(), key=lambda item: item[1].loss))

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

    def gap_closed(self, group: str, name: str, holdout: str) -> Estimate:
        """How much of its group's gap a row closes; none without `gap`, or where a row is missing."""
        rows = [self.groups[group][one] for one in (name, *self.gap)]
        if not self.gap or any(row.failed for row in rows):
            return Estimate(None, None)
        ours, fixed, oracle = rows
        return gap_closed(ours, fixed, oracle, holdout)

    def save(self, folder: Path) -> None:
        """Writes `sequences.safetensors` and then `result.json`."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        values["groups"] = {
            group: {name: row.to_json() | self._found(group, name) for name, row in rows.items()}
            for group, rows in self.groups.items()
        }
        parts = {
            key: scores
            for group, rows in self.groups.items()
            for name, row in rows.items()
            for key, scores in row.parts(f"{group}/{name}/").items()
        }
        save_json(values, parts, folder, "result.json")

    @classmethod
    def load(cls, folder: Path) -> Comparison:
        """Reads what `save` wrote; raises ValueError where that is damaged."""

        def build(values: dict[str, Any], arrays: dict[str, np.ndarray]) -> Comparison:
            known = {part.name for part in fields(Row)}
            values["groups"] = {
                group: {
                    name: Row.of({key: row[key] for key in known}, arrays, f"{group}/{name}/")
                    for name, row in rows.items()
                }
                for group, rows in values["groups"].items()
            }
            return cls(**values)

        return read_json(folder, "result.json", build)

    def _found(self, group: str, name: str) -> dict[str, Any]:
        """What a row's place beside the others says of it."""
        rows = self.groups[group]
        found = {
            holdout: {
                "minus": {
                    other: minus(rows[name], rows[other], holdout)._asdict()
                    for other in self.minus
                    if not rows[other].failed
                },
                "gap_closed": self.gap_closed(group, name, holdout)._asdict(),
            }
            for holdout in rows[name].subset
        }
        return {"beside": found}
