"""The control of capacity: the table of `ngram_budget` as a prediction, where it steers no route."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from duo import Gate, Router, Spec, Trial, replay, round_to_bfloat16, top
from routers.fixed_best import FixedBest
from routers.ngram_budget import BUCKETS, NgramTable


class NgramControl(Router):
    """The best fixed pattern, with the table of `ngram_budget` mixed into its prediction instead of its routes.

    The same rows, looked up alike and trained as long, move the logits of the next token: the numbers of a row go
    through one learned matrix, in place of the heads that the router has. So `predict` tells what the table is worth
    as knowledge, and the router beside it how much of that becomes lower loss by routing alone. It is trained under
    random routes of the budget, for the best pattern is not known before calibration.

    Args:
        spec: layers, width and budget.
        tokens: tokens looked up one by one, as in `ngram_budget`.
        together: longest sequence of tokens that is looked up as one.
        buckets: rows of the table.
        vocabulary: tokens that the matrix can move; those beyond the backbone's vocabulary stay unused.
    """

    def __init__(
        self, spec: Spec, tokens: int = 3, together: int = 3, buckets: int = BUCKETS, vocabulary: int = 2048
    ) -> None:
        super().__init__(spec)
        self.fixed = FixedBest(spec)
        self.search_method = self.fixed.search_method
        allowed = [module for module, count in enumerate(spec.budget) if count]
        self.table = NgramTable(spec.layers, allowed, tokens, together, buckets)
        self.matrix_VX = nn.Parameter(torch.randn(vocabulary, self.table.embedding_dim))  # the table is 0 at first

    def route(self, trial: Trial) -> Gate:
        """That of the best fixed pattern."""
        return self.fixed.route(trial)

    def loss(self, trial: Trial) -> Tensor:
        """Cross-entropy of the mixed prediction under random routes of the budget."""
        run = trial.run(replay(top(trial.uniform(), trial.counts(self.spec.budget))))
        return trial.loss(run.with_logits(run.logits_BTV + self._moved(trial))).mean()

    def calibrate(self, trials: Sequence[Trial]) -> None:
        """Halves the weights' bits, as the router does, and finds the best fixed pattern."""
        round_to_bfloat16(self)
        self.fixed.calibrate(trials)

    def predict(self, trial: Trial) -> Tensor:
        """log_probability_BTV of the next token: the fixed pattern's prediction with the table mixed into it."""
        return (trial.run(self.route(trial)).logits_BTV + self._moved(trial)).log_softmax(-1)

    def _moved(self, trial: Trial) -> Tensor:
        """What the table adds to logits_BTV; raises ValueError where the matrix has too few tokens."""
        if trial.vocabulary > (most := len(self.matrix_VX)):
            raise ValueError(f"router.vocabulary={most} is less than the backbone's vocabulary of {trial.vocabulary}")
        matrix_VX = self.matrix_VX[: trial.vocabulary]
        return self.table.found(trial.tokens_BT).to(matrix_VX) @ matrix_VX.T
