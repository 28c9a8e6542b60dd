"""The ladder of information: what routes gain by what they know, rung by rung, on the subset of searches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from duo.evaluation.comparison import Comparison
from duo.evaluation.intervals import Estimate
from duo.evaluation.knowable import Known
from duo.evaluation.row import describe_search
from duo.evaluation.score import Score, difference
from duo.report.canvas import error_bars, new_panels, search_line
from duo.report.names import name_part, printable
from duo.report.numbers import new_table, share, signed

CEILINGS = (
    "A rung's ceiling is how much less its knowledge loses, as a prediction, than the best fixed pattern. No routes "
    "gain more by knowledge that is calibrated and holds all that the candidates predict; a table holds less, and its "
    "ceiling is what it is worth as a prediction."
)
COLUMNS = ("gain", "of the oracle's", "loss", "passes", "knowledge", "its loss", "ceiling", "gain of it")


class Rung(NamedTuple):
    """A row of a ladder, on one hold-out."""

    name: str
    score: Score
    gain: Estimate
    """How much less it loses than the best fixed pattern, paired."""
    of_oracle: Estimate
    """The same as a share of the oracle's gain."""
    known: Known | None
    labels: bool
    """Whether it consulted the labels."""

    @property
    def shown(self) -> str:
        """Its name, and whether it spends more than the budget."""
        return printable(self.name) + ("" if self.score.within_budget else " (over the budget)")


def has_ladder(comparison: Comparison) -> bool:
    """Whether some row of a comparison says what it knows."""
    return any(beside.known for row in comparison.rows for beside in row.beside.values())


def rungs_of(comparison: Comparison, group: str, holdout: str) -> list[Rung]:
    """The rows of a group that were scored, in the order of the recipe; none where an end of the gap failed."""
    rows = {name: row for name, row in comparison.groups[group].items() if not row.failed}
    if not {*comparison.gap} <= {*rows}:
        return []
    fixed, found = rows[comparison.gap[0]].subset[holdout], []
    for name, row in rows.items():
        score, beside = row.subset[holdout], row.beside[holdout]
        gain, known = difference(fixed, score), beside.known or None
        found.append(Rung(name, score, gain, beside.gap_closed, known, score.labels_consulted))
    return found


def ladder_table(comparison: Comparison, group: str, holdout: str) -> Table:
    """Gain of every rung over the best fixed pattern, its share of the oracle's, and what its knowledge is worth."""
    rungs = rungs_of(comparison, group, holdout)
    where = f"{name_part(holdout, group)}: the ladder of information"
    tokens = f"; the subset of searches, {rungs[0].score.tokens:,} tokens" if rungs else ""
    search = describe_search(comparison.searches(group))
    view = new_table(f"{where}{tokens}; gain over {printable(comparison.gap[0])}{search}")
    for name in ("", *COLUMNS):
        view.add_column(name, justify="right" if name else "left", no_wrap=True)
    for rung in rungs:
        knowledge = [""] * 4
        if known := rung.known:
            knowledge = [printable(known.by), f"{known.loss:.4f}", signed(known.ceiling), share(known.share)]
        numbers = [signed(rung.gain), share(rung.of_oracle), f"{rung.score.loss:.4f}", f"{rung.score.passes:.4g}"]
        view.add_row(rung.shown, *numbers, *knowledge)
    return view


def ladder_remark(comparison: Comparison, group: str, holdout: str) -> str:
    """What the ladder says of what can be known, and of luck."""
    rungs = [rung for rung in rungs_of(comparison, group, holdout) if not rung.labels and rung.score.within_budget]
    where = name_part(holdout, group)
    highest = max(rungs, key=lambda rung: rung.of_oracle.value or 0.0, default=None)
    if highest is None or highest.of_oracle.value is None:
        return (
            f"{where}: there is no gap between the best fixed pattern and the oracle, of which a share could be known"
        )
    luck = 1 - max(highest.of_oracle.value, 0.0)
    return (
        f"{where}: the highest rung without labels ({printable(highest.name)}, {share(highest.of_oracle)} of the "
        f"oracle's gain) is a lower bound of what somebody can know; one minus it ({luck:.1%}) is an upper bound "
        "of luck. Each rung is what was found by its knowledge, and no limit of what that allows"
    )


def draw_ladder(comparison: Comparison) -> Figure:
    """Gain of every rung with its interval, and the ceiling of its knowledge; a line a group, a column a hold-out."""
    groups, holdouts = [*comparison.groups], comparison.holdouts
    height = 1.4 + 0.34 * max(map(len, comparison.groups.values()))
    figure, axes = new_panels(len(groups), len(holdouts), 6.5 * len(holdouts), height * len(groups))
    for line, group in zip(axes, groups, strict=True):
        for axis, holdout in zip(line, holdouts, strict=True):
            _draw_rungs(axis, rungs_of(comparison, group, holdout)[::-1])
            title = f"{name_part(holdout, group)}, subset of searches"
            label = f"gain over {printable(comparison.gap[0])} (nats per token)"
            axis.set(title=title + search_line(comparison.searches(group)), xlabel=label)
            axis.grid(alpha=0.3)
    handles = {
        text: handle for axis in axes.flat for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), fontsize=8)
    return figure


def _draw_rungs(axis: Axes, rungs: list[Rung]) -> None:
    for place, rung in enumerate(rungs):
        axis.errorbar(
            rung.gain.value or 0.0, place, xerr=error_bars([rung.gain]), fmt="o", color="C0", capsize=3,
            markerfacecolor="white" if rung.labels else "C0",
            label="gain of its routes, chosen with labels" if rung.labels else "gain of its routes",
        )  # fmt: skip
    left, right = axis.get_xlim()  # of the gains, which would all look like nothing beside what a teacher knows
    label = "ceiling: what its knowledge is worth as a prediction"
    for place, rung in enumerate(rungs):
        ceiling = rung.known.ceiling.value or 0.0 if rung.known else -np.inf
        if ceiling > right:
            axis.text(right, place, f"{ceiling:.2f} \u2192", color="C1", ha="right", va="center", fontsize=9)
        elif rung.known:
            axis.plot(max(ceiling, left), place, "|", color="C1", markersize=14, markeredgewidth=2, label=label)
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.set(xlim=(left, right), yticks=range(len(rungs)), yticklabels=[rung.shown for rung in rungs])
