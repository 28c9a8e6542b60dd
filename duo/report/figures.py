"""Pictures from results; pure functions of numbers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from duo.evaluation.comparison import Comparison
from duo.evaluation.downstream import Downstream
from duo.evaluation.result import Result
from duo.evaluation.score import Score
from duo.report.accuracy import draw_tasks
from duo.report.canvas import error_bars, new_panels, search_line
from duo.report.ladder import draw_ladder, has_ladder
from duo.report.names import printable
from duo.report.rows import loss_of, rows_by_loss, rows_of_result
from duo.storage.files import replacing

log = logging.getLogger(__name__)
Curve = list[tuple[int, float]]
"""(step, loss) of a training."""
LITERAL: dict[Any, bool] = {
    "text.parse_math": False,
    "text.usetex": False,
}  # names may hold dollars, which are no formulas


def draw(result: Result | Comparison | Downstream, curves: dict[str, Curve], folder: Path) -> None:
    """Draws the figures that `folder/figures` lacks; of one that fails a warning says why, and the others go on.

    Args:
        curves: loss against step by stage, of a run of its own.
    """
    draw_each(pictures(result, curves), folder)


def draw_each(drawn: Mapping[str, Callable[[], Figure]], folder: Path) -> None:
    """The same of figures that somebody else has made, by file name."""
    for name, picture in drawn.items():
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


def loss_across(comparison: Comparison) -> Figure:
    """Loss of every row against what the comparison goes over (figures 4a to 4c), promises dashed."""
    groups, holdouts = [*comparison.groups], comparison.holdouts
    figure, axes = new_panels(1, len(holdouts), 6.5 * len(holdouts), 4.5)
    for axis, holdout in zip(axes[0], holdouts, strict=True):
        scores = [comparison.scored(group, holdout, comparison.searched) for group in groups]
        # in the comparison's order: the same colours in all panels
        for name in (name for name in comparison.groups[groups[0]] if any(name in group for group in scores)):
            places = [place for place, group in enumerate(scores) if name in group]
            found = [scores[place][name] for place in places]
            line = _line(axis, places, found, name)
            promised = [score.promised_loss for score in found if score.promised_loss is not None]
            # a promise that is kept needs no line of its own
            if len(promised) == len(found) and not np.allclose(promised, [score.loss for score in found], atol=1e-4):
                axis.plot(places, promised, "--", linewidth=1, color=line, label=f"{_label(name)}, promised")
        keys = {group.partition("=")[0] for group in groups if ", " not in group}
        # names of several keys would run into one another
        slant = {} if keys else {"rotation": 30, "ha": "right", "fontsize": 8}
        axis.set_xticks(range(len(groups)), [_short(group) for group in groups], **slant)
        axis.set(title=f"{printable(holdout)}{search_line(comparison.searches())}", xlabel=", ".join(keys))
        axis.set_ylabel("loss (nats per token)")
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
        places, [score.loss for score in scores], yerr=error_bars([loss_of(score) for score in scores]), marker="o",
        markersize=3, linewidth=1, capsize=2, elinewidth=0.6, label=_label(name),
    )  # fmt: skip
    return drawn.lines[0].get_color()


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
