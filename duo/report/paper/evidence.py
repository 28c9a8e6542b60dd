"""What a report of the paper knows: comparisons by part, routes token by token, and what candidates are worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from duo.evaluation.comparison import Comparison
from duo.evaluation.intervals import LEVEL, Estimate, jackknife, jackknife_documents
from duo.evaluation.row import Row, average_rows, pair_scores
from duo.evaluation.trace import Candidates, Trace
from duo.recipe import name_group

Statistic = Callable[[np.ndarray], float]
"""A number of the sequences where keep_B is true."""


class Missing(ValueError):
    """A part of the report is not there."""


@dataclass(frozen=True)
class Evidence:
    """What was measured on one backbone."""

    layers: int
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    """By part."""
    traces: dict[str, dict[str, Trace]] = field(default_factory=dict)
    """By name (`oracle at half`, `router at half`, `all small`, ...) and hold-out."""
    candidates: dict[str, Candidates] = field(default_factory=dict)
    """By hold-out."""
    texts: list[bytes] = field(default_factory=list)
    """What each token stands for."""
    words: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    """By hold-out, facts of the traced labels, as `line_start_BT`."""
    level: float = LEVEL
    """Of every interval."""

    @property
    def budgets(self) -> dict[str, int]:
        """Big modules where the paper's model of 12 layers has 4, 6 and 8."""
        return {"few": self.layers // 3, "half": self.layers // 2, "many": self.layers - self.layers // 3}

    @property
    def holdouts(self) -> list[str]:
        """Names of the hold-outs, in order."""
        found = [comparison.holdouts for comparison in self.comparisons.values()] + [
            [*of] for of in self.traces.values()
        ]
        return [*dict.fromkeys(name for names in found for name in names)]

    def row(self, part: str, name: str, **group: object) -> Row:
        """A row of a part's group, as in `row("budgets", "oracle", **{"budget.big": 6})`; none named: of its only one.

        Raises:
            Missing: there is none, or it failed.
        """
        self.groups(part)
        groups = self.comparisons[part].groups
        wanted = name_group(group) or next(iter(groups))
        found = groups.get(wanted, {}).get(name)
        if found is None:
            raise Missing(f"part {part} has no row {name} at {wanted or 'all'}")
        if found.failed:
            raise Missing(f"row {name} of part {part} failed: {found.failed}")
        return found

    def rows(self, part: str) -> list[str]:
        """Names of a part's rows; raises Missing."""
        return [*dict.fromkeys(name for group in self.groups(part) for name in self.comparisons[part].groups[group])]

    def groups(self, part: str) -> list[str]:
        """Names of a part's groups; raises Missing."""
        if part not in self.comparisons:
            raise Missing(f"part {part} is not there")
        return [*self.comparisons[part].groups]

    def goes_over(self, part: str) -> list[int]:
        """The budgets that a part goes over, in big modules; raises Missing."""
        return [int(group.partition("=")[2]) for group in self.groups(part)]

    def seeds(self, part: str, name: str) -> Row:
        """A row of all groups of a part, which are its seeds, as one.

        Raises:
            Missing: it is not there, or failed.
        """
        rows = [self.comparisons[part].groups[group].get(name) for group in self.groups(part)]
        found = [row for row in rows if row and not row.failed]
        if not found:
            raise Missing(f"part {part} has no row {name}")
        return average_rows(found)

    def text(self, token: int) -> str:
        """A token as it is shown; bytes that are no whole sign are shown as one that is unknown."""
        return self.texts[token].decode(errors="replace") if token < len(self.texts) else f"<{token}>"

    def budget(self, name: str, big: int, part: str = "budgets") -> Row:
        """The row of so many big modules."""
        return self.row(part, name, **{"budget.big": big})

    def trace(self, name: str, holdout: str) -> Trace:
        """Raises Missing where there is none."""
        if holdout not in self.traces.get(name, {}):
            raise Missing(f"no routes of {name} on {holdout}")
        return self.traces[name][holdout]

    def minus(self, row: Row, other: Row, holdout: str) -> Estimate:
        """How much more a row loses than another, paired: on the full hold-out where both have it, else its subset."""
        ours, theirs = (score.sequences for score in pair_scores(row, other, holdout))
        return jackknife(np.subtract, ours, theirs, level=self.level)

    def of(self, statistic: Callable[..., np.ndarray], holdout: str, *rows: Row) -> Estimate:
        """A statistic of the rows' mean losses on the subset, which takes arrays."""
        return jackknife(statistic, *(row.subset[holdout].sequences for row in rows), level=self.level)

    def over(self, statistic: Statistic, trace: Trace) -> Estimate:
        """A statistic of a trace's sequences."""
        return jackknife_documents(statistic, trace.document_B, trace.scored_BT.sum(1), self.level)

    def over_candidates(self, statistic: Statistic, found: Candidates) -> Estimate:
        """A statistic of what candidates are worth."""
        return jackknife_documents(statistic, found.document_B, found.tokens_B, self.level)
