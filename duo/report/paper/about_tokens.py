"""Claims about tokens: figures 5 and 6."""

from __future__ import annotations

from functools import partial

import numpy as np

from duo.evaluation.difficulty import BOUND
from duo.evaluation.intervals import Estimate
from duo.evaluation.trace import Trace
from duo.evaluation.verdict import Part, above, below
from duo.report.paper import shares
from duo.report.paper.evidence import Evidence, Missing
from duo.report.paper.statement import claim

SOME = 0.01  # of the hardest tokens
IN_LINES = 0.03  # share of tokens that begin a line from which on a text counts as written in lines, as code is


@claim(
    "hard_without_potential",
    f"Some tokens of high loss have no potential: more than {SOME:.0%} of the hardest tenth, where the oracle gains "
    f"less than {BOUND} nats.",
    "figure 5",
)
def _hard_without_potential(evidence: Evidence, holdout: str) -> list[Part]:
    small, oracle = evidence.seeds("all small", holdout), evidence.trace("oracle at half", holdout)
    share = evidence.share_over(partial(shares.without_potential, oracle=oracle), small)
    return [above("share of the hardest tenth that has no potential", share, SOME)]


@claim(
    "line_starts",
    "In text that is written in lines, as code is, tokens that begin one are hard for all small, but have less "
    "potential than others.",
    "figure 6",
)
def _line_starts(evidence: Evidence, holdout: str) -> list[Part]:
    small, oracle = evidence.seeds("all small", holdout), evidence.trace("oracle at half", holdout)
    marked_BT = _marked_lines(evidence, holdout, small[0])

    def lead(of: str) -> Estimate:
        value_BT = small[0].loss_BT if of == "loss" else small[0].loss_BT - oracle.loss_BT
        return evidence.over(partial(shares.lead, value_BT=value_BT, marked_BT=marked_BT), small)

    return [
        above("loss of line starts under all small, minus the others'", lead("loss")),
        below("gain of the oracle on line starts, minus the others'", lead("gain")),
    ]


def _marked_lines(evidence: Evidence, holdout: str, small: Trace) -> np.ndarray:
    """line_start_BT; raises Missing where too few tokens begin a line: figure 6 is of code, whatever its name is."""
    marked_BT = evidence.words.get(holdout, {}).get("line_start_BT")
    if marked_BT is None:
        raise Missing("nobody says which tokens begin a line")
    share = float(marked_BT[small.scored_BT].mean())
    if share < IN_LINES:
        raise Missing(
            f"not asked of text that is not in lines: {share:.1%} of its tokens begin one, not {IN_LINES:.0%}"
        )
    return marked_BT
