"""Comparisons: rows beside one another on the same tokens, to and from `result.json`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from duo.intervals import Estimate, gap_between, mean_of
from duo.report import SCHEMA, Scores, read_json, save_json, scores_json, scores_of
from duo.score import Score, averaged, collapsed


@dataclass(frozen=True)
class Row:
    """One router of a comparison: what it is, and its scores."""

    router: str
    """Name of the router."""
    options: dict[str, Any]
    """Its options."""
    budget: dict[str, float]
    """Big and skip modules per token."""
    backbone: str = ""
    """Digest of the backbone."""
    learned: bool = False
    """Whether the router was trained."""
    seeds: int = 1
    """Seeds that the scores are averaged over."""
    seed_losses: dict[str, list[float]] | None = None
    """Loss of each seed, by hold-out."""
    scores: Scores | None = None
    """On whole hold-outs; none where the router searches and is scored on the subset alone."""
    subset: Scores | None = None
    """On the subset that searches are scored on."""
    failed: str | None = None
    """Why there are no scores."""

    @property
    def bound(self) -> bool:
        """Whether the router consulted the labels it was scored on."""
        return any(score.labels_consulted for score in (self.subset or {}).values())

    def to_json(self) -> dict[str, Any]:
        """The row in `result.json`."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        parts = {part: None if values[part] is None else scores_json(values[part]) for part in ("scores", "subset")}
        return values | parts

    @classmethod
    def of(cls, values: dict[str, Any], arrays: dict[str, np.ndarray], prefix: str = "") -> Row:
        """A row from what `to_json` and `parts` gave."""
        parts = {
            part: None if values[part] is None else scores_of(values[part], arrays, f"{prefix}{part}")
            for part in ("scores", "subset")
        }
        return cls(**values | parts)

    def parts(self, prefix: str = "") -> dict[str, Scores]:
        """Its scores by name, for the arrays."""
        return {f"{prefix}{part}": getattr(self, part) for part in ("scores", "subset") if getattr(self, part)}

    def save(self, folder: Path) -> None:
        """Writes the row, so that a comparison that is begun again need not score it again."""
        save_json({"schema": SCHEMA, **self.to_json()}, self.parts(), folder, "row.json")

    @classmethod
    def load(cls, folder: Path) -> Row:
        """Reads what `save` wrote; raises ValueError where that is damaged."""
        return read_json(folder, "row.json", lambda values, arrays: cls.of(_without_schema(values), arrays))


def over_seeds(rows: list[Row]) -> Row:
    """One row from those of several seeds."""
    parts: dict[str, Any] = {}
    for part in ("scores", "subset"):
        found = [getattr(row, part) for row in rows]
        parts[part] = found[0] and {name: averaged([scores[name] for scores in found]) for name in found[0]}
    shown = [row.scores or row.subset or {} for row in rows]
    losses = {holdout: [scores[holdout].loss for scores in shown] for holdout in shown[0]}
    return replace(rows[0], seeds=len(rows), seed_losses=losses, **parts)


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
    schema: int = SCHEMA
    """Version of this format."""

    def scored(self, group: str, holdout: str, subset: bool) -> dict[str, Score]:
        """The scores of a group's rows on one hold-out, lowest loss first."""
        rows = {name: row.subset if subset else row.scores for name, row in self.groups[group].items()}
        found = {name: scores[holdout] for name, scores in rows.items() if scores}
        return dict(sorted(found.items(), key=lambda item: item[1].loss))

    @property
    def holdouts(self) -> list[str]:
        """Names of the hold-outs."""
        rows = [row for group in self.groups.values() for row in group.values() if row.subset]
        return [*(rows[0].subset or {})] if rows else []

    @property
    def searched(self) -> bool:
        """Whether some row is scored on the subset alone, so that rows can only be compared there."""
        return any(row.scores is None for rows in self.groups.values() for row in rows.values() if not row.failed)

    def gap_closed(self, group: str, name: str, holdout: str) -> Estimate:
        """How much of its group's gap a row closes; none without `gap`, or where a row is missing."""
        subset, whole = (self.scored(group, holdout, part) for part in (True, False))
        if not self.gap or not {*self.gap, name} <= {*subset}:
            return Estimate(None, None)
        fixed, oracle = self.gap
        own = whole if {name, fixed} <= {*whole} else subset
        return gap_between(own[name].sequences, own[fixed].sequences, subset[fixed].sequences, subset[oracle].sequences)

    def collapsed(self, group: str, name: str) -> dict[str, list[str]]:
        """By hold-out, layers at which a router that learned never or always uses a module."""
        row = self.groups[group][name]
        shown = row.scores or row.subset or {}
        return {holdout: collapsed(score) if row.learned else [] for holdout, score in shown.items()}

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
        save_json({"schema": values.pop("schema"), **values}, parts, folder, "result.json")

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
        row, found = self.groups[group][name], {}
        for holdout in row.subset or {}:
            differences = {}
            for other in self.minus:
                whole, subset = (self.scored(group, holdout, part) for part in (False, True))
                scores = whole if {name, other} <= {*whole} else subset
                if other in scores:
                    differences[other] = difference(scores[name], scores[other])._asdict()
            found[holdout] = {
                "minus": differences,
                "gap_closed": self.gap_closed(group, name, holdout)._asdict(),
                "collapsed": self.collapsed(group, name)[holdout],
            }
        return {"beside": found}


def difference(score: Score, other: Score) -> Estimate:
    """How much more a router loses than another on the same tokens, nats per token, paired."""
    ours, theirs = score.sequences, other.sequences
    return mean_of(ours.loss_N - theirs.loss_N, ours.tokens_N)


def _without_schema(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "schema"}
