"""What a report of the paper knows: comparisons by part, routes token by token, and what candidates are worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from duo.evaluation.comparison import Comparison
from duo.evaluation.intervals import LEVEL, Estimate, Sequences, jackknife
from duo.evaluation.resample import jackknife_documents, jackknife_largest, jackknife_share
from duo.evaluation.row import Row, average_rows, pair_scores
from duo.evaluation.trace import Candidates, Trace
from duo.recipe import name_group

Statistic = Callable[[Trace, np.ndarray], Any]
"""A number of a trace, of the sequences where keep_B is true."""


class Missing(ValueError):
    """A part of the report is not there."""


def add_losses(rows: Sequence[Row], weights: Sequence[float], holdout: str) -> Sequences:
    """The weighted sum of rows' losses, seed by seed: on the full hold-out where all have it, else on its subset."""
    whole = all(row.scores for row in rows)
    found = [(row.scores if whole else row.subset)[holdout].sequences for row in rows]
    loss_ZB = np.sum([weight * of.loss_ZB for weight, of in zip(weights, found, strict=True)], axis=0)
    return found[0]._replace(loss_ZB=loss_ZB)


@dataclass(frozen=True)
class Evidence:
    """What was measured on one backbone."""

    layers: int
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    """By part."""
    traces: dict[str, dict[str, list[Trace]]] = field(default_factory=dict)
    """By name (`oracle at half`, `router at half`, ...) and hold-out; of a router that learned one for each seed."""
    candidates: dict[str, Candidates] = field(default_factory=dict)
    """By hold-out."""
    texts: list[bytes] = field(default_factory=list)
    """What each token stands for."""
    words: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    """By hold-out, facts of the traced labels, as `line_start_BT`."""
    level: float = LEVEL
    """Of every interval."""
    origins: dict[str, str] = field(default_factory=dict)
    """By part and trace, the backbone that it stands on, where that is not the one that the report is of."""

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

    def matched(self, part: str, *names: str) -> list[Row]:
        """Rows of those groups of a part that have them all; the groups are seeds, and each row is one of all of them.

        Raises:
            Missing: no group has all.
        """
        groups = [self.comparisons[part].groups[group] for group in self.groups(part)]
        found = [[group.get(name) for name in names] for group in groups]
        whole = [[row for row in rows if row and not row.failed] for rows in found]
        matched = [rows for rows in whole if len(rows) == len(names)]
        if not matched:
            raise Missing(f"part {part} has no row {' beside '.join(names)}")
        return [average_rows([*rows]) for rows in zip(*matched, strict=True)]

    def text(self, token: int) -> str:
        """A token as it is shown; bytes that are no whole sign are shown as one that is unknown."""
        return self.texts[token].decode(errors="replace") if token < len(self.texts) else f"<{token}>"

    def budget(self, name: str, big: int, part: str = "budgets") -> Row:
        """The row of so many big modules."""
        return self.row(part, name, **{"budget.big": big})

    def seeds(self, name: str, holdout: str) -> list[Trace]:
        """The traces of all seeds; raises Missing where there is none."""
        found = self.traces.get(name, {}).get(holdout)
        if not found:
            raise Missing(f"no routes of {name} on {holdout}")
        return found

    def trace(self, name: str, holdout: str) -> Trace:
        """That of the first seed; raises Missing where there is none."""
        return self.seeds(name, holdout)[0]

    def minus(self, row: Row, other: Row, holdout: str) -> Estimate:
        """How much more a row loses than another, paired: on the full hold-out where both have it, else its subset."""
        ours, theirs = (score.sequences for score in pair_scores(row, other, holdout))
        return jackknife(np.subtract, ours, theirs, level=self.level)

    def sum_paired(self, rows: Sequence[Row], weights: Sequence[float], holdout: str) -> Estimate:
        """A weighted sum of the losses of rows of the same seeds (see `matched`): a seed's trainings go together."""
        # what the trainings of a seed have in common is no doubt about their difference
        return jackknife(lambda together: together, add_losses(rows, weights, holdout), level=self.level)

    def of(self, statistic: Callable[..., np.ndarray], holdout: str, *rows: Row) -> Estimate:
        """A statistic of the rows' mean losses on the subset, which takes arrays."""
        return jackknife(statistic, *(row.subset[holdout].sequences for row in rows), level=self.level)

    def mixtures(self, family: str = "") -> list[str]:
        """Names of the traces that are mixtures of a family's backbone; raises Missing where there are none."""
        found = [name for name in self.traces if "%" in name and name.startswith("opt, ") == bool(family)]
        if not found:
            raise Missing(f"no routes of mixtures{f' of {family}' if family else ''}")
        return found

    def over(self, statistic: Statistic, traces: Sequence[Trace]) -> Estimate:
        """A statistic of a router's routes, averaged over its seeds."""
        return jackknife_documents(*self._sample(statistic, traces), level=self.level)

    def share_over(self, statistic: Statistic, traces: Sequence[Trace]) -> Estimate:
        """The same of a share of tokens."""
        return jackknife_share(*self._sample(statistic, traces), level=self.level)

    def largest_over(self, statistic: Statistic, traces: Sequence[Trace]) -> Estimate:
        """The largest of several shares of tokens, chosen by these tokens."""
        return jackknife_largest(*self._sample(statistic, traces), level=self.level)

    def _sample(
        self, statistic: Statistic, traces: Sequence[Trace]
    ) -> tuple[list[Callable[[np.ndarray], Any]], np.ndarray, np.ndarray]:
        """The statistic of each seed's trace, and the sequences that all of them are of."""
        first = traces[0]
        return [partial(statistic, trace) for trace in traces], first.document_B, first.scored_BT.sum(1)

    def over_candidates(self, statistic: Callable[[np.ndarray], float], found: Candidates) -> Estimate:
        """A statistic of what candidates are worth."""
        return jackknife_documents([statistic], found.document_B, found.tokens_B, self.level)
