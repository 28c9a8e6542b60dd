"""A softmax router whose budget loss is weighted by a controller instead of a constant, as in ReMoE."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from duo import Spec
from routers.softmax_budget import SoftmaxBudget

LEAST, MOST = 1e-4, 1e4  # of the weight, so that it can always turn


class AdaptiveBudget(SoftmaxBudget):
    """The softmax router with a weight of the budget loss that follows the measured share.

    After every step the weight grows where the share of a budgeted module, averaged over all processes, is off by more
    than `tolerance`, and shrinks where it is not (ReMoE's controller of sparsity, on the distance to the budget).

    Args:
        spec: layers, width and budget. A module whose budget is 0 is never used.
        alpha: weight of the budget loss at first.
        rate: factor by which a step raises or lowers it.
        tolerance: distance between share and budget up to which it is lowered.
        sharpness: inverse temperature at the end of training; it starts at 1.
        hidden: width of a hidden layer in each head; 0: a linear head.
    """

    def __init__(
        self,
        spec: Spec,
        alpha: float = 1.0,
        rate: float = 1.05,
        tolerance: float = 0.01,
        sharpness: float = 20.0,
        hidden: int = 0,
    ) -> None:
        super().__init__(spec, alpha, sharpness, hidden)
        if alpha <= 0 or rate <= 1 or tolerance <= 0:
            given = f"router.alpha={alpha}, router.rate={rate}, router.tolerance={tolerance}"
            raise ValueError(f"{given}: alpha and tolerance must be more than 0, rate more than 1")
        self.rate, self.tolerance = rate, tolerance
        self.register_buffer("alpha_M", self.alpha_M)  # saved, so that a training that is resumed goes on with it

    def budget_loss(self, share_BM: Tensor) -> Tensor:
        """The budget loss at the present weights; sets those of the next step."""
        loss = super().budget_loss(share_BM)
        share_M = share_BM.detach().mean(0)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(share_M)
            share_M /= distributed.get_world_size()
        off_M = (share_M - self.share_M).abs() > self.tolerance
        moved_M = (self.alpha_M * torch.where(off_M, self.rate, 1 / self.rate)).clamp(LEAST, MOST)
        self.alpha_M = moved_M.where(self.alpha_M > 0, 0)
        return loss
