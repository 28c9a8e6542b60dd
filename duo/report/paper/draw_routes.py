"""Figures 2, 3, 7 and 9: which modules tokens use."""

from __future__ import annotations

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
from duo.report.paper.canvas import MODULE_COLORS, to_grid
from duo.report.paper.tables import Rows, split_rows

PIXELS: dict[str, Any] = {"aspect": "auto", "origin": "lower", "interpolation": "none"}
NAMED = [*zip(MODULES, MODULE_COLORS, strict=True)]


def draw_shares(rows: Rows) -> Figure:
    """Figures 2 and 3: share of a module by layer and position, a panel each, a line of panels for each hold-out."""
    holdouts = split_rows(rows, "holdout")
    columns = max(len(split_rows(part, "panel")) for part in holdouts.values())
    figure, axes = new_panels(len(holdouts), columns, 3.6 * columns, 3.1 * len(holdouts), sharey=True)
    for line, (holdout, part) in zip(axes, holdouts.items(), strict=True):
        for axis, (panel, of_panel) in zip(line, split_rows(part, "panel").items(), strict=False):
            image = axis.imshow(to_grid(of_panel, "share"), vmin=0, vmax=1, cmap="cividis", **PIXELS)
            axis.set(title=f"{panel}, {printable(holdout)}", xlabel="position in the sequence")
            axis.title.set_fontsize(10)
            _number_layers(axis.yaxis)
        line[0].set_ylabel("layer")
    figure.colorbar(image, ax=axes, label="share of tokens that use the module", shrink=0.8)
    return figure


def draw_sequences(rows: Rows) -> Figure:
    """Figure 7: the modules of one sequence, layer by position, a line for each mixture."""
    holdouts, panels = split_rows(rows, "holdout"), split_rows(rows, "panel")
    figure, axes = new_panels(len(panels), len(holdouts), 7 * len(holdouts), 2.2 * len(panels) + 0.6, sharex="col")
    colors = ListedColormap(MODULE_COLORS)
    for line, panel in zip(axes, panels, strict=True):
        for axis, holdout in zip(line, holdouts, strict=True):
            part = split_rows(panels[panel], "holdout")[holdout]
            numbered = [row | {"number": MODULES.index(row["module"])} for row in part]
            axis.imshow(to_grid(numbered, "number"), vmin=0, vmax=2, cmap=colors, **PIXELS)
            axis.set_title(f"{panel}, {printable(holdout)}", fontsize=10)
            _number_layers(axis.yaxis)
        line[0].set_ylabel("layer")
    for axis in axes[-1]:
        axis.set_xlabel("position in the sequence")
    figure.legend(handles=_legend(), loc="outside upper right", ncols=3, fontsize=8)
    return figure


def draw_mixtures(rows: Rows) -> Figure:
    """Figure 9: shares of the modules by layer, and by position, a line of panels for each mixture and hold-out."""
    panels = split_rows(rows, "panel")
    holdouts = [*split_rows(rows, "holdout")]
    figure, axes = new_panels(len(panels), 2 * len(holdouts), 8 * len(holdouts), 2.6 * len(panels), sharey=True)
    for line, (panel, part) in zip(axes, panels.items(), strict=True):
        for number, (holdout, of_holdout) in enumerate(split_rows(part, "holdout").items()):
            grids = {name: to_grid(found, "share") for name, found in split_rows(of_holdout, "module").items()}
            by_layer, by_position = line[2 * number : 2 * number + 2]
            _stack(by_layer, {name: grid_LT.mean(1) for name, grid_LT in grids.items()})
            _stack(by_position, {name: grid_LT.mean(0) for name, grid_LT in grids.items()}, width=1.0)
            by_layer.set(title=f"{panel.removeprefix('opt, ')}, {printable(holdout)}", xlabel="layer")
            by_layer.title.set_fontsize(9)
            by_position.set(xlabel="position in the sequence")
            _number_layers(by_layer.xaxis)
        line[0].set_ylabel("share of modules")
    figure.legend(handles=_legend(), loc="outside upper right", ncols=3, fontsize=8)
    return figure


def _stack(axis: Axes, shares: dict[str, np.ndarray], width: float = 0.85) -> None:
    """Bars that add up to 1: skip below, big on top."""
    bottom = np.zeros(len(next(iter(shares.values()))))
    for name, color in NAMED:
        axis.bar(np.arange(len(bottom)), shares[name], width, bottom, color=color)
        bottom = bottom + shares[name]
    axis.margins(x=0)
    axis.set_ylim(0, 1)


def _legend() -> list[Patch]:
    return [Patch(facecolor=color, edgecolor="grey", label=name) for name, color in NAMED]


def _number_layers(axis: Axis) -> None:
    """Ticks at whole numbers alone."""
    axis.set_major_locator(MaxNLocator(integer=True))
