"""Pictures of rows, a line each: minus another row on the same tokens, with what they lose and cost."""

from __future__ import annotations

from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from duo.evaluation.comparison import Comparison
from duo.evaluation.intervals import Estimate
from duo.evaluation.result import Result
from duo.evaluation.score import Score, difference
from duo.report.canvas import error_bars, new_panels, search_line
from duo.report.names import name_part, printable

NEAR = 0.01  # nats: differences up to this are drawn to scale, greater ones by their logarithm


def rows_of_result(result: Result) -> Figure:
    """A run's rows, each minus the best fixed pattern on the same tokens: full hold-outs above, their subset below."""
    parts = {"full hold-out": result.full_rows(), "subset of searches": result.subset_rows()}
    panels = [
        [
            Panel(
                f"{printable(holdout)}, {where}",
                {name: scores[holdout] for name, scores in rows.items()},
                "fixed_best",
            )
            for holdout in result.gap_closed
        ]
        for where, rows in parts.items()
    ]
    return _rows(panels, result.searches)


def rows_by_loss(comparison: Comparison) -> Figure:
    """Each group's rows by loss, each minus the first row that all are compared with: full above, the subset below."""
    panels = []
    for group in comparison.groups:
        for where, subset in (("full hold-out", False), ("subset of searches", True)):
            line = []
            for holdout in comparison.holdouts:
                scores = comparison.scored(group, holdout, subset)
                other = next((name for name in comparison.minus if name in scores), None)
                line.append(Panel(f"{name_part(holdout, group)}, {where}", scores, other))
            panels += [line] if line[0].scores else []
    return _rows(panels, comparison.searches())


class Panel(NamedTuple):
    """Rows on the same tokens."""

    title: str
    scores: dict[str, Score]
    other: str | None
    """The row that is subtracted from all; None: losses are shown as they are."""


def _rows(lines: list[list[Panel]], searches: dict[str, str]) -> Figure:
    """A line a row, with 95 % intervals; what each loses and costs stands beside it. Bounds are hollow."""
    heights = [1.2 + 0.3 * max(len(panel.scores) for panel in line) for line in lines]
    columns = len(lines[0])
    figure, axes = new_panels(len(lines), columns, 7 * columns, sum(heights), height_ratios=heights)
    for axis, panel in zip(axes.flat, (panel for line in lines for panel in line), strict=True):
        _draw_rows(axis, panel)
        shown = {name: how for name, how in searches.items() if name in panel.scores}
        axis.set_title(f"{panel.title}{search_line(shown)}")
    return figure


def _draw_rows(axis: Axes, panel: Panel) -> None:
    scores = dict(sorted(panel.scores.items(), key=lambda item: -item[1].loss))  # the best one on top
    other = None if panel.other is None else panel.scores[panel.other]
    for place, score in enumerate(scores.values()):
        found = loss_of(score) if other is None else difference(score, other)
        axis.errorbar(
            found.value or 0.0, place, xerr=error_bars([found]), fmt="o", color="C0", capsize=3,
            markerfacecolor="white" if score.labels_consulted else "C0",
        )  # fmt: skip
    places = range(len(scores))
    axis.set_yticks(places, [printable(name) for name in scores])
    costs = [f"{score.loss:.4f}, {score.flops_per_token / 1e6:.3f} MFLOPs" for score in scores.values()]
    axis.secondary_yaxis("right").set_yticks(places, costs, fontsize=8)
    axis.set_xlabel("loss (nats per token)" + (f" minus {printable(panel.other)}'s" if panel.other else ""))
    axis.grid(alpha=0.3)
    if other is not None:
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set_xscale("symlog", linthresh=NEAR)
        ticks = [sign * size for sign in (-1, 1) for size in (NEAR / 2, NEAR, 10 * NEAR, 100 * NEAR)]
        axis.set_xticks([0, *ticks], ["0", *(f"{tick:+g}" for tick in ticks)], fontsize=7)


def loss_of(score: Score) -> Estimate:
    """A row's loss with its interval."""
    return Estimate(score.loss, score.loss_interval)
