"""Pictures from results; pure functions of numbers."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from duo.evaluate import Score
from duo.files import replacing
from duo.report import Result

Curve = list[tuple[int, float]]


def training_loss(curves: dict[str, Curve]) -> Figure:
    """Loss against step, a panel for each stage."""
    figure, axes = plt.subplots(1, len(curves), figsize=(5 * len(curves), 3.5), squeeze=False, layout="constrained")
    for axis, (title, curve) in zip(axes[0], curves.items(), strict=True):
        axis.plot(*zip(*curve, strict=True), linewidth=1)
        axis.set(title=title, xlabel="step", ylabel="training loss (nats per token)")
        axis.grid(alpha=0.3)
    return figure


def loss_against_budget(result: Result) -> Figure:
    """Loss against FLOPs with intervals, a column for each hold-out: whole above, the subset with the bounds below."""
    holdouts, parts = [*result.gap_closed], [result.whole_rows(), result.subset_rows()]
    figure, axes = plt.subplots(2, len(holdouts), figsize=(5 * len(holdouts), 7.5), squeeze=False, layout="constrained")
    for column, holdout in enumerate(holdouts):
        for axis, rows, where in zip(axes[:, column], parts, ("whole hold-out", "subset of searches"), strict=True):
            _losses(axis, {name: scores[holdout] for name, scores in rows.items()})
            axis.set(title=f"{holdout}, {where}", xlabel="backbone MFLOPs per token", ylabel="loss (nats per token)")
    return figure


def _losses(axis: Axes, scores: dict[str, Score]) -> None:
    """Points with 95 % intervals, and the budget."""
    for name, score in scores.items():
        low, high = score.loss_interval or (score.loss, score.loss)
        errors = [[max(score.loss - low, 0)], [max(high - score.loss, 0)]]
        axis.errorbar(score.flops_per_token / 1e6, score.loss, yerr=errors, fmt="o", capsize=3, label=name)
    budget = scores["random"].budget_flops_per_token / 1e6
    axis.axvline(budget, color="grey", linewidth=0.8, linestyle=":")
    axis.text(budget, 0.99, " budget", color="grey", fontsize=8, va="top", transform=axis.get_xaxis_transform())
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)


def big_share(shares: dict[str, np.ndarray]) -> Figure:
    """Share of tokens that use the big module, by layer and position (figures 2 and 3 of the paper), and by layer.

    Args:
        shares: big_TL of each hold-out.
    """
    figure, axes = plt.subplots(
        2, len(shares), figsize=(5 * len(shares), 6), squeeze=False, layout="constrained", height_ratios=(3, 2)
    )
    for (above, below), (holdout, big_TL) in zip(axes.T, shares.items(), strict=True):
        image = above.imshow(
            big_TL.T, aspect="auto", origin="lower", vmin=0, vmax=1, cmap="RdBu_r", interpolation="none"
        )
        above.set(title=holdout, xlabel="position in the sequence", ylabel="layer")
        figure.colorbar(image, ax=above, label="share of big")
        layers = np.arange(big_TL.shape[1])
        below.bar(layers, big_TL.mean(0), color="firebrick")
        below.axhline(big_TL.mean(), color="grey", linewidth=0.8, linestyle="--")
        below.set(xlabel="layer", ylabel="share of big", ylim=(0, 1))
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG and closes it."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)
