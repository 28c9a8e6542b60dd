"""Figures 4 and 8: differences in loss, paired."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from duo.evaluation.intervals import Estimate
from duo.report.canvas import error_bars, new_panels
from duo.report.names import printable
from duo.report.paper.canvas import COLORS, MARKS
from duo.report.paper.tables import Rows, split_rows


def draw_rows(rows: Rows) -> Figure:
    """Figures 4a and 4c: paired differences with their intervals, a panel for each hold-out."""
    holdouts = split_rows(rows, "holdout")
    lines = max(map(len, holdouts.values()))
    figure, axes = new_panels(1, len(holdouts), 6 * len(holdouts), 1.2 + 0.4 * lines)
    for axis, (holdout, part) in zip(axes[0], holdouts.items(), strict=True):
        for place, row in enumerate(reversed(part)):
            axis.errorbar(row["difference"], place, xerr=_bars([row]), fmt="o", color=COLORS[0], capsize=3)
        axis.set_yticks(range(len(part)), [printable(row["row"]) for row in reversed(part)])
        losses = axis.secondary_yaxis("right")
        losses.set_yticks(range(len(part)), [f"{row['loss']:.4f}" for row in reversed(part)], fontsize=8)
        losses.set_ylabel("loss", fontsize=8)
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set(title=printable(holdout), xlabel="difference in loss (nats per token), paired")
        axis.margins(y=0.15)
        axis.grid(alpha=0.3)
    return figure


def _bars(rows: Rows) -> np.ndarray:
    """Lengths of the rows' error bars, (2, N)."""
    found = [(row["difference"], row["difference_low"], row["difference_high"]) for row in rows]
    return error_bars([Estimate(value, None if low is None else (low, high)) for value, low, high in found])


def draw_budgets(rows: Rows) -> Figure:
    """Figure 4b: paired differences to all big against the number of big layers, with bands; promises dotted."""
    holdouts = split_rows(rows, "holdout")
    figure, axes = new_panels(1, len(holdouts), 7.5 * len(holdouts), 5)
    for axis, (holdout, part) in zip(axes[0], holdouts.items(), strict=True):
        for (name, line), style, color in zip(split_rows(part, "row").items(), MARKS, COLORS, strict=False):
            _draw_band(axis, line, "big", name, style, color)
            all_big = next(row["loss"] for row in part if row["difference"] == 0)
            promised = [(row["big"], row["promised"] - all_big) for row in line if row["promised"] is not None]
            if any(abs(row["promised"] - row["loss"]) > 1e-3 for row in line if row["promised"] is not None):
                axis.plot(*zip(*promised, strict=True), ":", color=color, linewidth=1, label=f"{name}, as promised")
        axis.axhline(0, color="grey", linewidth=0.8)
        end = {"xycoords": ("axes fraction", "data"), "xytext": (3, 0), "textcoords": "offset points", "va": "center"}
        axis.annotate("all big", (1, 0), fontsize=8, color="grey", **end)  # beside the lines, not across them
        axis.set(
            title=printable(holdout), xlabel="big layers per token", ylabel="loss minus all big's (nats per token)"
        )
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    return figure


def _draw_band(axis: Axes, rows: Rows, x: str, name: str, style: str, color: str) -> None:
    """A line of differences, and the band of its intervals."""
    at = [row[x] for row in rows]
    axis.plot(at, [row["difference"] for row in rows], style, color=color, markersize=4, linewidth=1.2, label=name)
    known = [row for row in rows if row["difference_low"] is not None]
    low, high = ([row[f"difference_{end}"] for row in known] for end in ("low", "high"))
    axis.fill_between([row[x] for row in known], low, high, color=color, alpha=0.15, linewidth=0)


def draw_trainings(rows: Rows) -> Figure:
    """Figure 8: paired differences to the dense model of big FFNs against the share of big, by how it was trained."""
    holdouts = split_rows(rows, "holdout")
    figure, axes = new_panels(1, len(holdouts), 6.5 * len(holdouts), 4.5)
    for axis, (holdout, part) in zip(axes[0], holdouts.items(), strict=True):
        lines = zip(split_rows(part, "training").items(), MARKS, COLORS, strict=False)
        for number, ((name, line), style, color) in enumerate(lines):
            at = [row["p_big"] + 0.012 * (number - 1) for row in line]  # beside one another, not on top
            found = [row["difference"] for row in line]
            axis.errorbar(at, found, yerr=_bars(line), fmt=style, color=color, capsize=3, markersize=5, label=name)
        axis.axhline(0, color="grey", linewidth=0.8)
        axis.set(
            title=printable(holdout), xlabel="share of big", ylabel="loss minus the dense model's (nats per token)"
        )
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    return figure
