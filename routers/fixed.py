"""One pattern for all tokens; all-small and all-big are its extremes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from duo import Gate, Router, Spec, Trial, replay, top
from duo.backbone import BIG, SKIP, SMALL
from duo.routing.compose import even_scores


class Fixed(Router):
    """The same pattern for every token.

    Args:
        spec: layers, width and budget.
        pattern: a module for each layer (0 skip, 1 small, 2 big), or one for all; null: the budget, spread evenly over
            the layers. A fractional budget gives one pattern per count that occurs.
    """

    pattern_L: Tensor | None
    score_L: Tensor

    def __init__(self, spec: Spec, pattern: Sequence[int] | int | None = None) -> None:
        super().__init__(spec)
        modules = [pattern] * spec.layers if isinstance(pattern, int) else pattern
        if modules is not None and (len(modules) != spec.layers or not set(modules) <= {SKIP, SMALL, BIG}):
            raise ValueError(
                f"router.pattern={pattern} must hold one module (0 skip, 1 small, 2 big) for each of the "
                f"{spec.layers} layers, or be one for all"
            )
        self.register_buffer("pattern_L", None if modules is None else torch.tensor(list(modules)))
        self.register_buffer("score_L", even_scores(spec.layers))

    def route(self, trial: Trial) -> Gate:
        """Looks at nothing but the counts of a fractional budget."""
        shape = (*trial.tokens_BT.shape, self.spec.layers)
        if self.pattern_L is not None:
            return replay(self.pattern_L.expand(shape))
        return replay(top(self.score_L.expand(shape), trial.counts(self.spec.budget)))
