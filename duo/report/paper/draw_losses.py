"""Figures 4 and 8: differences in loss, paired."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from duo.evaluation.intervals import Estimate
from duo.report.canvas import error_bars, new_panels
from duo.report.names import printable
from duo.report.paper.canvas import COLORS, MARKS, WIDTH
from duo.report.paper.rows import Rows, split_rows
from duo.report.paper.tables import BOUNDS

STYLES = [*zip(MARKS, COLORS, strict=True)]


def draw_rows(rows: Rows) -> Figure:
    """Figures 4a and 4c: paired differences with their intervals, a panel for each hold-out."""
    holdouts = split_rows(rows, "holdout")
    lines = max(map(len, holdouts.values()))
    figure, axes = new_panels(len(holdouts), 1, WIDTH, (1.2 + 0.3 * lines) * len(holdouts), sharex=True)
    for axis, (holdout, part) in zip(axes[:, 0], holdouts.items(), strict=True):
        for place, row in enumerate(reversed(part)):
            axis.errorbar(row["difference"], place, xerr=_bars([row]), fmt="o", color=COLORS[0], capsize=3)
        axis.set_yticks(range(len(part)), [printable(row["row"]) for row in reversed(part)])
        losses = axis.secondary_yaxis("right")
        losses.set_yticks(range(len(part)), [f"{row['loss']:.4f}" for row in reversed(part)], fontsize=8)
        losses.set_ylabel("loss", fontsize=8)
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set_title(printable(holdout))
        axis.margins(y=0.15)
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("difference in loss (nats per token), paired")
    return figure


def _bars(rows: Rows) -> np.ndarray:
    """Lengths of the rows' error bars, (2, N)."""
    found = [(row["difference"], row["difference_low"], row["difference_high"]) for row in rows]
    return error_bars([Estimate(value, None if low is None else (low, high)) for value, low, high in found])


def draw_budgets(rows: Rows) -> Figure:
    """Figure 4b: paired differences to all big against the number of big layers, with bands; promises dotted.

    Two panels for each hold-out: all rows, and nearer those that no label chose, which lie on one another in the first.
    """
    holdouts = split_rows(rows, "holdout")
    figure, axes = new_panels(2 * len(holdouts), 1, WIDTH, 6.2 * len(holdouts), sharex=True)
    for (whole, near), (holdout, part) in zip(axes.reshape(-1, 2), holdouts.items(), strict=True):
        styles = dict(zip(split_rows(part, "row"), STYLES, strict=False))
        free = [row for row in part if row["row"] not in BOUNDS]
        for axis, shown, title in ((whole, part, ""), (near, free, ", rows that see no label")):
            _draw_lines(axis, shown, styles)
            axis.set(title=printable(holdout) + title, ylabel="loss minus all big's (nats)")
        all_big = next((row["loss"] for row in part if row["difference"] == 0), 0.0)
        _draw_promises(whole, part, styles, all_big)
    axes[-1, 0].set_xlabel("big layers per token")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _draw_lines(axis: Axes, rows: Rows, styles: dict[str, tuple[str, str]]) -> None:
    """A line and a band for each row, and that of all big."""
    for name, line in split_rows(rows, "row").items():
        _draw_band(axis, line, "big", name, *styles[name])
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.annotate(  # beside the lines, not across them
        "all big", (1, 0), (3, 0), ("axes fraction", "data"), "offset points", va="center", fontsize=8, color="grey"
    )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)


def _draw_promises(axis: Axes, rows: Rows, styles: dict[str, tuple[str, str]], all_big: float) -> None:
    """What was promised, dotted, where it was not kept."""
    for name, line in split_rows(rows, "row").items():
        told = [row for row in line if row["promised"] is not None]
        if any(abs(row["promised"] - row["loss"]) > 1e-3 for row in told):
            at, promised = [row["big"] for row in told], [row["promised"] - all_big for row in told]
            axis.plot(at, promised, ":", color=styles[name][1], linewidth=1, label=f"{name}, as promised")


def _draw_band(axis: Axes, rows: Rows, x: str, name: str, style: str, color: str) -> None:
    """A line of differences, and the band of its intervals."""
    at = [row[x] for row in rows]
    axis.plot(at, [row["difference"] for row in rows], style, color=color, markersize=4, linewidth=1.2, label=name)
    known = [row for row in rows if row["difference_low"] is not None]
    low, high = ([row[f"difference_{end}"] for row in known] for end in ("low", "high"))
    axis.fill_between([row[x] for row in known], low, high, color=color, alpha=0.15, linewidth=0)


def draw_trainings(rows: Rows) -> Figure:
    """Figure 8: differences to the dense model of big FFNs against the share of big: means, and each seed as a dot."""
    holdouts = split_rows(rows, "holdout")
    figure, axes = new_panels(len(holdouts), 1, WIDTH, 3.6 * len(holdouts), sharex=True)
    for axis, (holdout, part) in zip(axes[:, 0], holdouts.items(), strict=True):
        lines = zip(split_rows(part, "training").items(), STYLES, strict=False)
        for number, ((name, line), (style, color)) in enumerate(lines):
            at = np.array([row["p_big"] + 0.015 * (number - 1) for row in line])  # beside one another, not on top
            axis.plot(at, [row["difference"] for row in line], style, color=color, markersize=6, label=name)
            seeds = np.array([[float(value) for value in row["differences"].split()] for row in line])
            axis.plot(at + 0.008, seeds, ".", color=color, markersize=5, alpha=0.7)
        axis.axhline(0, color="grey", linewidth=0.8)
        axis.set(title=printable(holdout), ylabel="loss minus that of dense, all big (nats)")
        axis.legend(fontsize=9)
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("share of big; a dense model stands where it costs as much")
    return figure
