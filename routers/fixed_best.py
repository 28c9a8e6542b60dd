"""The paper's "fixed": the one pattern with the lowest mean loss on calibration data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from duo import Gate, Router, Spec, Trial, replay
from duo.routing.climb import climb_to_fixed, mean_losses
from duo.routing.compose import even_patterns
from duo.search.patterns import can_list, codes, counts_of, pattern_codes, pattern_counts, patterns_with

CLIMBED = 8  # where patterns are not listed, one in so many of the tokens is climbed on


class FixedBest(Router):
    """The best fixed pattern, chosen on calibration data; deployable, and the baseline of gap closed.

    A fractional budget has one pattern for each count that occurs. Patterns are enumerated, or where they are too many
    found by local search: from the layers whose flip hurts all big most, by swaps of two layers.

    Args:
        spec: layers, width and budget.
        tokens: tokens of each calibration set to choose on; local search climbs on an eighth of them.
    """

    pattern_PL: Tensor
    best_P: Tensor

    def __init__(self, spec: Spec, tokens: int = 2048) -> None:
        super().__init__(spec)
        self.tokens = tokens
        count_CM = counts_of(spec.layers, spec.budget)
        listed = can_list(count_CM)
        self.search_method = None if listed else "local"
        pattern_PL = patterns_with(count_CM) if listed else even_patterns(count_CM)
        self.register_buffer("pattern_PL", pattern_PL, persistent=not listed)
        first_P = [int((pattern_codes(pattern_PL) == code).nonzero()[0]) for code in pattern_codes(pattern_PL).unique()]
        self.register_buffer("best_P", torch.tensor(first_P))

    def calibrate(self, trials: Sequence[Trial]) -> None:
        """Takes the pattern (of each count) with the lowest loss, averaged over the calibration sets."""
        if self.search_method:
            count_CM = pattern_counts(self.pattern_PL.cpu())
            self.pattern_PL.copy_(climb_to_fixed(trials, count_CM, -(-self.tokens // CLIMBED)))
            return
        mean_P, code_P = mean_losses(trials, self.pattern_PL, self.tokens), pattern_codes(self.pattern_PL.cpu())
        for index, code in enumerate(code_P.unique()):
            self.best_P[index] = mean_P.masked_fill(code_P != code, torch.inf).argmin()

    def route(self, trial: Trial) -> Gate:
        """The same pattern for every token of the same count."""
        best_CL = self.pattern_PL[self.best_P]
        code_C = pattern_codes(best_CL).to(best_CL.device)
        at_BT = torch.searchsorted(code_C, codes(trial.counts(self.spec.budget), self.spec.layers))
        return replay(best_CL[at_BT])
