"""Figures 5 and 6: losses token by token."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from duo.report.canvas import new_panels
from duo.report.names import printable
from duo.report.paper.canvas import COLORS, MARKS, WIDTH
from duo.report.paper.rows import Rows, split_rows

PER_LINE = 68  # characters of a passage in figure 6
DIFFICULTY = (("a: loss under all small", "small"), ("b: gap to the oracle", "gap"))
"""Figure 6's panels, and the column that each shows."""
GROUND = LinearSegmentedColormap.from_list("ground", [(1, 1, 1), (0.15, 0.45, 0.85)])


def draw_passage(rows: Rows) -> Figure:
    """Figure 5: loss token by token under four routes, a panel for each hold-out."""
    holdouts = split_rows(rows, "holdout")
    figure, axes = new_panels(len(holdouts), 1, WIDTH, 3.6 * len(holdouts))
    for axis, (holdout, part) in zip(axes[:, 0], holdouts.items(), strict=True):
        for name, style, color in zip(("small", "big", "router", "oracle"), MARKS, COLORS, strict=False):
            axis.plot([row[name] for row in part], style, color=color, markersize=4, linewidth=1, label=name)
        tokens = [_shown(row["token"]) for row in part]
        axis.set_xticks(range(len(part)), tokens, rotation=90, fontsize=8, family="monospace")
        axis.set(title=printable(holdout), ylabel="loss (nats)")
        axis.legend(fontsize=8, ncols=4)
        axis.grid(alpha=0.3)
    return figure


def _shown(token: str) -> str:
    """A token as it can be seen."""
    return printable(token.replace("\n", "\u21b5").replace("\t", "\u21e5").replace(" ", "\u00b7"), 24)


def draw_difficulty(rows: Rows) -> Figure:
    """Figure 6: a passage, its tokens darker the harder they are (a), and the more the oracle gains on them (b)."""
    holdouts = split_rows(rows, "holdout")
    drawn = [(holdout, *panel) for holdout in holdouts for panel in DIFFICULTY]
    lines = {name: _lay_out(part) for name, part in holdouts.items()}
    heights = [max(line for line, _ in lines[holdout]) + 2 for holdout, _, _ in drawn]
    # one below the other, so that the words can be read on a page's width
    figure, axes = new_panels(len(drawn), 1, WIDTH, 0.21 * sum(heights) + 1, height_ratios=heights)
    for axis, (holdout, panel, column) in zip(axes[:, 0], drawn, strict=True):
        most = _write(axis, holdouts[holdout], lines[holdout], column)
        scale = ScalarMappable(Normalize(0, most), GROUND)
        figure.colorbar(scale, ax=axis, label="nats", extend="max", fraction=0.02, pad=0.01)
        axis.set_title(f"{panel}, {printable(holdout)}", fontsize=10)
    return figure


def _lay_out(rows: Rows) -> list[tuple[int, int]]:
    """Line and column at which each token begins."""
    places, line, column = [], 0, 0
    for row in rows:
        text = row["token"]
        if column + len(text) > PER_LINE:
            line, column = line + 1, 0
        places.append((line, column))
        breaks = text.count("\n")
        line, column = line + breaks, len(text.rpartition("\n")[2]) if breaks else column + len(text)
    return places


def _write(axis: Axes, rows: Rows, places: list[tuple[int, int]], column: str) -> float:
    """Tokens on a ground whose darkness is their number, up to the 95th percentile, which is returned."""
    values = np.array([row[column] for row in rows])
    most = max(float(np.quantile(values, 0.95)), 1e-9)
    for row, (line, start), value in zip(rows, places, np.clip(values / most, 0, 1), strict=True):
        text = row["token"].partition("\n")[0] or "\u21b5"
        axis.text(
            start, line, printable(text, 40), family="monospace", fontsize=7, va="center", parse_math=False,
            color="white" if value > 0.7 else "black",
            bbox={"facecolor": GROUND(value), "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    axis.set(xlim=(0, PER_LINE), ylim=(max(line for line, _ in places) + 1, -1))
    axis.axis("off")
    return most
