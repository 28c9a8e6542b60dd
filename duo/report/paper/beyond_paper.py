"""Claims of ours: what fewer FLOPs save in time, and what can be known without labels."""

from __future__ import annotations

import numpy as np

from duo.evaluation.intervals import Estimate, share_of_gap, t_quantile
from duo.evaluation.row import Row
from duo.evaluation.verdict import Part, above, below, of_seeds
from duo.report.paper.evidence import Evidence, Missing
from duo.report.paper.statement import claim

FEWEST = 4  # timed rows that a line is drawn through
PART = 0.5  # of the gap


@claim(
    "time",
    "On this machine, routed passes take less time than all big, and the less the fewer FLOPs they take.",
    "section 2, a hypothesis",
)
def _time(evidence: Evidence, holdout: str) -> list[Part]:
    all_big = evidence.budget("committed", evidence.layers).subset[holdout].flops_per_token
    scores = [row.shown[holdout] for row in _routed(evidence)]
    flops_K = np.array([(score.flops_per_token + score.router_flops_per_token) / all_big for score in scores])
    time_K = np.array([score.time_ratio for score in scores])
    mean, slope = draw_line(flops_K, time_K, evidence.level)
    return [
        below(f"time of {len(scores)} rows as a part of all big's, at {flops_K.mean():.2f} of its FLOPs", mean, 1),
        above("of the FLOPs that are saved, the part that is saved in time", slope),
    ]


def _routed(evidence: Evidence) -> list[Row]:
    """The rows that were timed: routers of part `routers`, each at budgets below all big."""
    budgets = [big for big in evidence.goes_over("routers") if big < evidence.layers]
    rows = [evidence.budget(name, big, "routers") for name in evidence.rows("routers") for big in budgets]
    if len(rows) < FEWEST:
        raise Missing(f"part routers has {len(rows)} rows below all big, and {FEWEST} are needed")
    return rows


def draw_line(x_K: np.ndarray, y_K: np.ndarray, level: float) -> tuple[Estimate, Estimate]:
    """The mean of y at the mean of x, and how much y grows with x, by least squares; each row is one measurement.

    >>> [round(found.value, 6) for found in draw_line(np.arange(4.0), np.array([0.1, 0.9, 2.1, 2.9]), 0.95)]
    [1.5, 0.96]
    """
    apart_K = x_K - x_K.mean()
    square = float((apart_K**2).sum())
    if not square:
        return Estimate(float(y_K.mean()), None), Estimate(None, None)
    slope = float((apart_K * y_K).sum() / square)
    left_K = y_K - y_K.mean() - slope * apart_K
    error = float((left_K**2).sum() / (len(x_K) - 2)) ** 0.5
    if not error:
        return Estimate(float(y_K.mean()), None), Estimate(slope, None)  # nobody measures time that exactly
    reach = error * t_quantile(len(x_K) - 2, level)
    found = ((float(y_K.mean()), reach / len(x_K) ** 0.5), (slope, reach / square**0.5))
    mean, growth = (Estimate(value, (value - width, value + width)) for value, width in found)
    return mean, growth


@claim(
    "ladder",
    f"Learned routers that see no label close less than {PART:.0%} of the gap from fixed to the oracle.",
    "duo",
)
def _ladder(evidence: Evidence, holdout: str) -> list[Part]:
    group = evidence.groups("ladder")[0]
    comparison = evidence.comparisons["ladder"]
    if not comparison.gap:
        raise Missing("part ladder has no gap: give it compare.gap")
    fixed, oracle = (evidence.row("ladder", name) for name in comparison.gap)
    gap = evidence.of(np.subtract, holdout, fixed, oracle).interval
    clear = gap is not None and gap[0] > 0
    parts = []
    for name, row in comparison.groups[group].items():
        if row.learned and not row.failed and not row.bound:
            # of a gap that may be none nobody closes a part
            closed = evidence.of(share_of_gap, holdout, row, fixed, oracle) if clear else Estimate(None, None)
            parts += of_seeds([below(f"{name}: part of the gap that is closed", closed, PART)], row.seeds)
    if not parts:
        raise Missing("part ladder has no learned router that sees no label")
    return parts
