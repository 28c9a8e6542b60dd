"""Figures 2, 3, 7 and 9: which modules tokens use."""

from __future__ import annotations

from string import ascii_lowercase
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from duo.backbone import MODULES
from duo.report.canvas import new_panels
from duo.report.names import printable
from duo.report.paper.canvas import MODULE_COLORS, WIDTH, to_grid
from duo.report.paper.rows import Rows, split_rows

PIXELS: dict[str, Any] = {"aspect": "auto", "origin": "lower", "interpolation": "none"}
NAMED = [*zip(MODULES, MODULE_COLORS, strict=True)]
LETTERS = ascii_lowercase  # as the paper counts panels


def draw_shares(rows: Rows) -> Figure:
    """Figures 2 and 3: how often a layer is used at a position, against the panel's mean; the layer's share beside it.

    Two panels a line, so that a telephone shows them; all of one hold-out, then those of the next.
    """
    holdouts = split_rows(rows, "holdout")
    panels = [(holdout, *of) for holdout, part in holdouts.items() for of in split_rows(part, "panel").items()]
    grids = [to_grid(of_panel) for *_, of_panel in panels]
    reach = _find_reach(grids)
    figure, axes = new_panels((len(panels) + 1) // 2, 2, WIDTH, 2.3 * ((len(panels) + 1) // 2) + 0.8)
    for axis, (holdout, panel, _), grid_LT in zip(axes.flat, panels, grids, strict=False):
        apart_LT = grid_LT - grid_LT.mean()
        image = axis.imshow(apart_LT, vmin=-reach, vmax=reach, cmap="cividis", **PIXELS)
        axis.set_title(f"{panel}, {printable(holdout)}", fontsize=9)
        axis.tick_params(labelsize=8)
        _number_layers(axis.yaxis)
        shares = axis.secondary_yaxis("right")
        shares.set_yticks(range(len(grid_LT)), [f"{share:.2f}" for share in grid_LT.mean(1)], fontsize=6)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    figure.supxlabel("position in the sequence", fontsize=9)
    figure.supylabel("layer", fontsize=9)
    label = "share of tokens minus the panel's mean"
    figure.colorbar(image, ax=axes, label=label, location="top", shrink=0.6, aspect=40, extend="both")
    return figure


def _find_reach(grids: list[np.ndarray]) -> float:
    """Up to which difference colours reach: but for one place in fifty, to the next twentieth, a half at most."""
    apart = np.concatenate([np.abs(grid_LT - grid_LT.mean()).ravel() for grid_LT in grids])
    return float(np.clip(np.ceil(np.quantile(apart, 0.98) * 20) / 20, 0.05, 0.5))


def draw_sequences(rows: Rows) -> Figure:
    """Figure 7: the modules of one sequence, layer by position, a line for each mixture and hold-out."""
    lines = _find_lines(rows)
    figure, axes = new_panels(len(lines), 1, WIDTH, 1.6 * len(lines) + 0.6, sharex=True)
    colors = ListedColormap(MODULE_COLORS)
    for axis, (title, part) in zip(axes[:, 0], lines, strict=True):
        numbers_LT = np.vectorize(MODULES.index, otypes=[int])(to_grid(part))
        axis.imshow(numbers_LT, vmin=0, vmax=2, cmap=colors, **PIXELS)
        axis.set_title(title, fontsize=9)
        _number_layers(axis.yaxis)
    figure.supylabel("layer", fontsize=9)
    axes[-1, 0].set_xlabel("position in the sequence")
    figure.legend(handles=_legend(), loc="outside upper center", ncols=3, fontsize=9)
    return figure


def draw_mixtures(rows: Rows) -> Figure:
    """Figure 9: shares of the modules by layer (left) and by position (right), a line for each mixture and hold-out."""
    lines = _find_lines(rows)
    figure, axes = new_panels(len(lines), 2, WIDTH, 1.8 * len(lines) + 0.6, sharey=True, sharex="col")
    for (by_layer, by_position), (title, part) in zip(axes, lines, strict=True):
        for axis, by in ((by_layer, "layer"), (by_position, "position")):
            _stack(axis, [row for row in part if row["by"] == by])
        by_layer.set_title(title, fontsize=9)
        _number_layers(by_layer.xaxis)
    axes[-1, 0].set_xlabel("layer")
    axes[-1, 1].set_xlabel("position in the sequence")
    figure.supylabel("share of modules", fontsize=9)
    figure.legend(handles=_legend(), loc="outside upper center", ncols=3, fontsize=9)
    return figure


def _find_lines(rows: Rows) -> list[tuple[str, Rows]]:
    """Title and rows of each mixture on each hold-out where it was measured; a mixture keeps its letter."""
    letters = dict(zip(split_rows(rows, "panel"), LETTERS, strict=False))
    return [
        (f"{letters[panel]}: {panel.removeprefix('opt, ')}, {printable(holdout)}", part)
        for holdout, of_holdout in split_rows(rows, "holdout").items()
        for panel, part in split_rows(of_holdout, "panel").items()
    ]


def _stack(axis: Axes, rows: Rows) -> None:
    """Areas in steps that add up to 1, skip below, big on top: as bars, which would be thousands of drawn things."""
    edges, bottom = np.arange(len(rows) + 1) - 0.5, np.zeros(len(rows))
    for name, color in NAMED:
        top = bottom + np.array([row[name] for row in rows])
        axis.stairs(top, edges, baseline=bottom, fill=True, color=color, linewidth=0)
        bottom = top
    axis.margins(x=0)
    axis.set_ylim(0, 1)


def _legend() -> list[Patch]:
    return [Patch(facecolor=color, edgecolor="grey", label=name) for name, color in NAMED]


def _number_layers(axis: Axis) -> None:
    """Ticks at whole numbers alone."""
    axis.set_major_locator(MaxNLocator(integer=True))
