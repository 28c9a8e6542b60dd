"""Pictures from results; pure functions of numbers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from duo.evaluation.comparison import Comparison
from duo.evaluation.downstream import Downstream
from duo.evaluation.intervals import Estimate
from duo.evaluation.result import Result
from duo.evaluation.score import Score, difference
from duo.report.accuracy import draw_tasks
from duo.report.canvas import error_bars, new_panels, search_line
from duo.report.ladder import draw_ladder, has_ladder
from duo.report.names import printable
from duo.storage.files import replacing

log = logging.getLogger(__name__)
Curve = list[tuple[int, float]]
"""(step, loss) of a training."""
LITERAL: dict[Any, bool] = {
    "text.parse_math": False,
    "text.usetex": False,
}  # names may hold dollars, which are no formulas
NEAR = 0.01  # nats: differences up to this are drawn to scale, greater ones by their logarithm


def draw(result: Result | Comparison | Downstream, curves: dict[str, Curve], folder: Path) -> None:
    """Draws the figures that `folder/figures` lacks; of one that fails a warning says why, and the others go on.

    Args:
        curves: loss against step by stage, of a run of its own.
    """
    for name, picture in pictures(result, curves).items():
        path = folder / "figures" / f"{name}.png"
        if path.exists():
            continue
        try:
            with mpl.rc_context(LITERAL), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font lacks is shown as boxes
                save(picture(), path)
        except Exception as error:  # the result is there; matplotlib has exceptions of many kinds
            log.warning("figures  %s cannot be drawn: %s", path, printable(repr(error), 300))


def pictures(result: Result | Comparison | Downstream, curves: dict[str, Curve]) -> Mapping[str, Callable[[], Figure]]:
    """What draws each figure, by file name."""
    if isinstance(result, Downstream):
        return {"accuracy": partial(draw_tasks, result)}
    if isinstance(result, Comparison):
        loss = loss_across if len(result.groups) > 1 else rows_by_loss
        drawn = {"loss": partial(loss, result), "big_share": partial(layer_share, result)}
        return drawn | ({"ladder": partial(draw_ladder, result)} if has_ladder(result) else {})
    scores = result.scores or result.subset["router"]
    shares = {holdout: score.sequences.share_TLM[..., 2] for holdout, score in scores.items()}
    drawn = {"loss": partial(rows_of_result, result), "big_share": partial(big_share, shares)}
    logged = {stage: curve for stage, curve in curves.items() if curve}
    return drawn | ({"training_loss": partial(training_loss, logged)} if logged else {})


def training_loss(curves: dict[str, Curve]) -> Figure:
    """Loss against step, a panel for each stage."""
    figure, axes = new_panels(1, len(curves), 5 * len(curves), 3.5)
    for axis, (title, curve) in zip(axes[0], curves.items(), strict=True):
        axis.plot(*zip(*curve, strict=True), linewidth=1)
        axis.set(title=title, xlabel="step", ylabel="training loss (nats per token)")
        axis.grid(alpha=0.3)
    return figure


def rows_of_result(result: Result) -> Figure:
    """A run's rows, each minus the best fixed pattern on the same tokens: full hold-outs above, their subset below."""
    parts = {"full hold-out": result.full_rows(), "subset of searches": result.subset_rows()}
    panels = [
        [
            Panel(f"{holdout}, {where}", {name: scores[holdout] for name, scores in rows.items()}, "fixed_best")
            for holdout in result.gap_closed
        ]
        for where, rows in parts.items()
    ]
    return _rows(panels, result.searches)


def rows_by_loss(comparison: Comparison) -> Figure:
    """One group's rows by loss, each minus the first row that all are compared with: full above, the subset below."""
    ((group, _),), panels = comparison.groups.items(), []
    for where, subset in (("full hold-out", False), ("subset of searches", True)):
        line = []
        for holdout in comparison.holdouts:
            scores = comparison.scored(group, holdout, subset)
            other = next((name for name in comparison.minus if name in scores), None)
            line.append(Panel(f"{holdout}, {where}", scores, other))
        panels += [line] if line[0].scores else []
    return _rows(panels, comparison.searches(group))


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
        axis.set_title(f"{printable(panel.title)}{search_line(shown)}")
    return figure


def _draw_rows(axis: Axes, panel: Panel) -> None:
    scores = dict(sorted(panel.scores.items(), key=lambda item: -item[1].loss))  # the best one on top
    other = None if panel.other is None else panel.scores[panel.other]
    for place, score in enumerate(scores.values()):
        found = _loss(score) if other is None else difference(score, other)
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
        axis.set_xticks([0, *ticks], ["0", *(f"{tick:+g}" for tick in ticks)], fontsize=8)


def loss_across(comparison: Comparison) -> Figure:
    """Loss of every row against what the comparison goes over (figures 4a to 4c), promises dashed."""
    groups, holdouts = [*comparison.groups], comparison.holdouts
    figure, axes = new_panels(1, len(holdouts), 6.5 * len(holdouts), 4.5)
    for axis, holdout in zip(axes[0], holdouts, strict=True):
        scores = [comparison.scored(group, holdout, comparison.searched) for group in groups]
        for name in dict.fromkeys(name for group in scores for name in group):
            places = [place for place, group in enumerate(scores) if name in group]
            found = [scores[place][name] for place in places]
            line = _line(axis, places, found, name)
            promised = [score.promised_loss for score in found if score.promised_loss is not None]
            # a promise that is kept needs no line of its own
            if len(promised) == len(found) and not np.allclose(promised, [score.loss for score in found], atol=1e-4):
                axis.plot(places, promised, "--", linewidth=1, color=line, label=f"{_label(name)}, promised")
        keys = {group.partition("=")[0] for group in groups if ", " not in group}
        axis.set_xticks(range(len(groups)), [_short(group) for group in groups])
        axis.set(
            title=f"{printable(holdout)}{search_line(comparison.searches())}",
            xlabel=", ".join(keys),
            ylabel="loss (nats per token)",
        )
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def layer_share(comparison: Comparison) -> Figure:
    """Share of tokens that use the big module, by row and layer (figure 2 of the paper), a panel for each hold-out."""
    holdouts = comparison.holdouts
    width = 2 + 0.35 * sum(map(len, comparison.groups.values()))
    figure, axes = new_panels(len(holdouts), 1, width, 4.2 * len(holdouts))
    for axis, holdout in zip(axes[:, 0], holdouts, strict=True):
        shares = sorted(
            (
                (name, place, f"{printable(name)} {_short(group)}".strip(), score.sequences.share_TLM[..., 2].mean(0))
                for place, group in enumerate(comparison.groups)
                for name, score in comparison.scored(group, holdout, True).items()
            ),
            key=lambda item: item[:2],
        )
        image = axis.imshow(
            np.stack([share[-1] for share in shares], axis=1), aspect="auto", origin="lower", vmin=0, vmax=1,
            cmap="RdBu_r", interpolation="none",
        )  # fmt: skip
        axis.set_xticks(range(len(shares)), [share[2] for share in shares], rotation=90, fontsize=7)
        axis.set_yticks(range(len(shares[0][-1])))
        axis.set(title=f"{printable(holdout)}{search_line(comparison.searches())}", ylabel="layer")
        figure.colorbar(image, ax=axis, label="share of big")
    return figure


def _label(name: str) -> str:
    """A name as a legend takes it: what begins with `_` is left out there."""
    return f" {printable(name)}" if name.startswith("_") else printable(name)


def _short(group: str) -> str:
    """A group's value, where it goes over one key."""
    return printable(group if ", " in group else group.partition("=")[2], 120)


def _line(axis: Axes, places: list[int], scores: list[Score], name: str) -> Any:
    """A line with 95 % intervals; returns its colour."""
    drawn = axis.errorbar(
        places, [score.loss for score in scores], yerr=error_bars([_loss(score) for score in scores]), marker="o",
        markersize=3, linewidth=1, capsize=2, elinewidth=0.6, label=_label(name),
    )  # fmt: skip
    return drawn.lines[0].get_color()


def _loss(score: Score) -> Estimate:
    return Estimate(score.loss, score.loss_interval)


def big_share(shares: dict[str, np.ndarray]) -> Figure:
    """Share of tokens that use the big module, by layer and position (figures 2 and 3 of the paper), and by layer.

    Args:
        shares: share of big, (T, L), in each hold-out.
    """
    figure, axes = new_panels(2, len(shares), 5 * len(shares), 6, height_ratios=(3, 2))
    for (above, below), (holdout, big_TL) in zip(axes.T, shares.items(), strict=True):
        image = above.imshow(
            big_TL.T, aspect="auto", origin="lower", vmin=0, vmax=1, cmap="RdBu_r", interpolation="none"
        )
        above.set(title=printable(holdout), xlabel="position in the sequence", ylabel="layer")
        figure.colorbar(image, ax=above, label="share of big")
        layers = np.arange(big_TL.shape[1])
        below.bar(layers, big_TL.mean(0), color="firebrick")
        below.axhline(big_TL.mean(), color="grey", linewidth=0.8, linestyle="--")
        below.set(xlabel="layer", ylabel="share of big", ylim=(0, 1))
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)  # the temporary name has another ending
