"""Claims about training: figure 8."""

from __future__ import annotations

from duo.evaluation.verdict import Part, above, below, within
from duo.report.paper.evidence import Evidence
from duo.report.paper.statement import claim

CLOSE = 0.1  # nats between models that are called close
TWINS = {
    "all big": ("duo_100", "dense_big"), "half big": ("duo_50", "dense_equal_flops"),
    "all small": ("duo_0", "dense_small"),
}  # fmt: skip
"""The duo backbone at a share of big, and the dense model that costs as much."""


@claim(
    "near_dense",
    f"All big, the duo backbone is close to its dense twin ({CLOSE} nats), and closer than all small is to its own.",
    "figure 8a",
)
def _near_dense(evidence: Evidence, holdout: str) -> list[Part]:
    rows = evidence.matched("dense", *TWINS["all big"], *TWINS["all small"])
    return [
        within("all big minus its dense twin", evidence.sum_paired(rows[:2], (1, -1), holdout), CLOSE),
        above("all small's distance to its twin minus all big's", evidence.sum_paired(rows, (-1, 1, 1, -1), holdout)),
    ]


@claim("dense_better", "At every size, a dense model loses less than the duo backbone at its cost.", "figure 8b")
def _dense_better(evidence: Evidence, holdout: str) -> list[Part]:
    return [
        above(f"{title}: jointly minus dense", evidence.sum_paired(evidence.matched("dense", *twins), (1, -1), holdout))
        for title, twins in TWINS.items()
    ]


@claim(
    "joint_beats_freezing",
    "Training both modules jointly loses less than the big one first, frozen, then the small.",
    "figure 8c",
)
def _joint_beats_freezing(evidence: Evidence, holdout: str) -> list[Part]:
    rows = evidence.matched("dense", "duo_50", "big_first_50")
    return [below("half big: jointly minus big first", evidence.sum_paired(rows, (1, -1), holdout))]
