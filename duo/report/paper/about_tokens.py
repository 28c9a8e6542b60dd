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
LITTLE = 0.5  # correlation of loss and gain up to which one says little of the other
FEW, MOST = 0.1, 0.5  # of the tokens, and of the gain
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
    "loss_says_little",
    f"How much a token loses under all small says little of what the oracle gains on it (correlation below {LITTLE}).",
    "section 3.2.2",
)
def _loss_says_little(evidence: Evidence, holdout: str) -> list[Part]:
    small, oracle = evidence.seeds("all small", holdout), evidence.trace("oracle at half", holdout)
    correlation = evidence.over(partial(shares.loss_and_gain, oracle=oracle), small)
    return [below("correlation of loss under all small and gain, over tokens", correlation, LITTLE)]


@claim(
    "gain_on_few",
    f"The oracle gains on few tokens: more than {MOST:.0%} of what it gains on all small lies on {FEW:.0%} of them.",
    "figure 6b",
)
def _gain_on_few(evidence: Evidence, holdout: str) -> list[Part]:
    small, oracle = evidence.seeds("all small", holdout), evidence.trace("oracle at half", holdout)
    part = evidence.over(partial(shares.gain_of_few, oracle=oracle, few=FEW), small)
    return [above(f"part of the gain that lies on the {FEW:.0%} of tokens with most of it", part, MOST)]


@claim(
    "line_starts",
    "In text that is written in lines, as code is, tokens that begin one are hard for all small, but have less "
    "potential than others.",
    "figure 6",
)
def _line_starts(evidence: Evidence, holdout: str) -> list[Part]:
    small, oracle = evidence.seeds("all small", holdout), evidence.trace("oracle at half", holdout)
    marked_BT = _marked_lines(evidence, holdout, small[0])
    starts = int(marked_BT[small[0].scored_BT].sum())

    def lead(of: str) -> Estimate:
        value_BT = small[0].loss_BT if of == "loss" else small[0].loss_BT - oracle.loss_BT
        return evidence.over(partial(shares.lead, value_BT=value_BT, marked_BT=marked_BT), small)

    return [
        above(f"loss of {starts} line starts under all small, minus the others'", lead("loss")),
        below(f"gain of the oracle on {starts} line starts, minus the others'", lead("gain")),
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
