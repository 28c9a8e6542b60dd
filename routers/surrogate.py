"""A surrogate of the oracle (sections 3.3 and 5 of the paper): predicts what each choice would cost, then chooses."""

from __future__ import annotations

import torch
from torch import Tensor

from duo import Gate, Spec, Trial, one_hot, replay, top
from routers.ngram_budget import BUCKETS, NgramTable
from routers.softmax_budget import SoftmaxBudget

SCALE, MOST = 10.0, 3.0  # logits per nat of predicted difference; differences beyond so many nats are cut


class Surrogate(SoftmaxBudget):
    """Predicts, from what is known before the label, how a token's loss changes with the module of one layer.

    The teacher is the labels' oracle in a reference context: random routes of the budget, from which every token tries
    another module at random layers, one pass for all tokens at once. The differences of loss are regressed, so that
    large regrets weigh most. In evaluation the module of the lowest predicted loss is taken, after calibrated offsets.

    Args:
        spec: layers, width and budget. A module whose budget is 0 is never used.
        flips: layers at which each token tries another module in a training step.
        hidden: width of a hidden layer in each head; 0: a linear head.
        tokens: tokens looked up one by one, as in `ngram_budget`.
        together: longest sequence of tokens that is looked up as one.
        buckets: rows of the table.
    """

    def __init__(
        self,
        spec: Spec,
        flips: int = 2,
        hidden: int = 16,
        tokens: int = 3,
        together: int = 3,
        buckets: int = BUCKETS,
    ) -> None:
        super().__init__(spec, hidden=hidden)
        self.table = NgramTable(spec.layers, self.allowed, tokens, together, buckets)
        if flips < 1:
            raise ValueError(f"router.flips={flips} must be 1 or more")
        self.flips = flips

    def logits_of(self, trial: Trial) -> Gate:
        """The heads' logits plus what the table says of the trial's tokens."""
        return self.table.added_to(self.logits, trial.tokens_BT)

    def loss(self, trial: Trial) -> Tensor:
        """Mean squared error of the predicted differences, in units of `SCALE` per nat."""
        route_BTL = top(trial.uniform(), trial.counts(self.spec.budget))
        logits, seen = self.logits_of(trial), []

        def noted(x_BSD: Tensor, layer: int) -> Tensor:
            seen.append(logits(x_BSD, layer))
            return one_hot(route_BTL[..., layer])

        run = trial.run(noted)
        loss_BT, logits_BTLM = trial.loss(run), torch.stack(seen, dim=2)
        errors = []
        for draw in range(1, self.flips + 1):
            layer_BT1, other_BT1 = self._tried(trial, route_BTL, draw)
            with torch.no_grad():
                tried = trial.run(replay(route_BTL.scatter(2, layer_BT1, other_BT1)), context=run)
                gain_BT = (loss_BT - trial.loss(tried)).clamp(-MOST, MOST)
            here_BTM = logits_BTLM.gather(2, layer_BT1[..., None].expand(-1, -1, 1, logits_BTLM.shape[-1]))[:, :, 0]
            better_BT1 = here_BTM.gather(2, other_BT1) - here_BTM.gather(2, route_BTL.gather(2, layer_BT1))
            errors.append((better_BT1[..., 0] - SCALE * gain_BT) ** 2)
        return torch.stack(errors).mean()

    def _tried(self, trial: Trial, route_BTL: Tensor, draw: int) -> tuple[Tensor, Tensor]:
        """layer_BT1, and the other allowed module that each token tries there."""
        first_BT = trial.uniform(2 * draw)[..., 0]
        second_BT = trial.uniform(2 * draw + 1)[..., 0]
        layer_BT1 = (first_BT * self.spec.layers).long()[..., None]
        allowed_A = torch.tensor(self.allowed, device=route_BTL.device)
        place_BT1 = (route_BTL.gather(2, layer_BT1)[..., None] == allowed_A).int().argmax(-1)
        step_BT1 = 1 + (second_BT * (len(self.allowed) - 1)).long()[..., None]
        return layer_BT1, allowed_A[(place_BT1 + step_BT1) % len(self.allowed)]
