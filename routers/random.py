"""Random routes: stage 1 of the paper, and the baseline of every router."""

from __future__ import annotations

import torch

from duo import Gate, Router, Spec, Trial, replay, top
from duo.backbone import BIG, SKIP, SMALL


class Random(Router):
    """Random modules: exactly the budget per token, or a coin per token and layer.

    Args:
        spec: layers, width and budget.
        p_big: probability of big at each layer; null: every token uses exactly its budget, in random layers.
        p_skip: probability of skip at each layer, beside `p_big`; what is left is small.
    """

    def __init__(self, spec: Spec, p_big: float | None = None, p_skip: float = 0.0) -> None:
        super().__init__(spec)
        if p_big is None and p_skip:
            raise ValueError(f"router.p_skip={p_skip} needs router.p_big: without it the budget decides")
        if not (0 <= (p_big or 0) <= 1 and 0 <= p_skip <= 1 and (p_big or 0) + p_skip <= 1):
            raise ValueError(f"router.p_big={p_big} and router.p_skip={p_skip} must be probabilities of sum at most 1")
        self.p_big, self.p_skip = p_big, p_skip

    def route(self, trial: Trial) -> Gate:
        """The same route for the same token of the same sequence, however it is batched."""
        uniform_BTL = trial.uniform()
        if self.p_big is None:
            return replay(top(uniform_BTL, trial.counts(self.spec.budget)))
        big_BTL, skip_BTL = uniform_BTL < self.p_big, uniform_BTL >= 1 - self.p_skip
        return replay(torch.where(big_BTL, BIG, torch.where(skip_BTL, SKIP, SMALL)))
