"""Best of 100 random patterns (figure 4a): how far choice alone goes when the candidates are few."""

from __future__ import annotations

import torch
from torch import Tensor

from duo import Gate, Router, Spec, Trial, replay
from duo.search import draw_patterns
from duo.search.patterns import counts_of


class BestOfRandom(Router):
    """The best of a few random patterns of the budget, each applied to whole sequences; consults the labels: a bound.

    Args:
        spec: layers, width and budget.
        patterns: random patterns (of each count, if the budget is fractional).
        per: `sequence`, `token` (under context `same`) or `batch`: what each choice is for.
    """

    pattern_PL: Tensor

    def __init__(self, spec: Spec, patterns: int = 100, per: str = "sequence") -> None:
        super().__init__(spec)
        if patterns < 1 or per not in ("sequence", "token", "batch"):
            raise ValueError(
                f"router.patterns={patterns} must be 1 or more, router.per={per!r} sequence, token or batch"
            )
        self.per = per
        drawn = [draw_patterns(count_M, patterns) for count_M in counts_of(spec.layers, spec.budget)]
        self.register_buffer("pattern_PL", torch.cat(drawn))

    def route(self, trial: Trial) -> Gate:
        """Scores all patterns in context `same` with the labels, and follows the best."""
        found = trial.search(self.pattern_PL, [self.spec.budget], "same", unit=self.per)
        return replay(found.route_BTGL[:, :, 0])
