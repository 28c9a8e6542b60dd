"""One router for every budget: the same weights serve whatever budget the Spec names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from duo import Gate, Router, Spec, Trial, calibrated, round_to_bfloat16
from duo.backbone import BIG, MODULES
from routers.softmax_budget import best, check_ranges, mixed


class AnyBudget(Router):
    """A softmax router that is told the budget, trained on budgets drawn anew for each sequence.

    Its weights do not depend on `spec.budget`: under another Spec only the calibrated offset differs.

    Args:
        spec: layers, width and budget (of big modules; skip must be 0).
        alpha: weight of the budget loss.
        sharpness: inverse temperature at the end of training; it starts at 1.
        hidden: width of the hidden layer in each head.
    """

    offset_M: Tensor
    banned_M: Tensor

    def __init__(self, spec: Spec, alpha: float = 10.0, sharpness: float = 20.0, hidden: int = 16) -> None:
        super().__init__(spec)
        check_ranges(alpha, sharpness, hidden, least_hidden=1)
        if spec.budget.skip:
            raise ValueError(f"budget.skip={spec.budget.skip}: router any_budget chooses between small and big alone")
        self.alpha, self.sharpness = alpha, sharpness
        self.first = nn.ModuleList(nn.Linear(spec.width + 1, hidden) for _ in range(spec.layers))
        self.last = nn.ModuleList(nn.Linear(hidden, 1) for _ in range(spec.layers))
        self.register_buffer("offset_M", torch.zeros(len(MODULES)))
        self.register_buffer("banned_M", torch.tensor(spec.budget) == 0, persistent=False)

    def logits(self, x_BSD: Tensor, layer: int, share_B: Tensor) -> Tensor:
        """logits_BSM for big modules on a share of the layers, told for each sequence."""
        told_BS1 = share_B[:, None, None].expand(-1, x_BSD.shape[1], 1)
        hidden = self.first[layer](torch.cat((x_BSD, told_BS1), dim=-1).to(self.offset_M))
        big_BS = self.last[layer](torch.nn.functional.gelu(hidden))[..., 0] + torch.logit(share_B, 1e-3)[:, None]
        return torch.stack((torch.full_like(big_BS, -torch.inf), torch.zeros_like(big_BS), big_BS), dim=-1)

    def route(self, trial: Trial) -> Gate:
        """In training a mixture for the drawn budgets; in evaluation the better module for the Spec's."""
        if not self.training:
            return best(self._allowed, self.offset_M)
        share_B = self._drawn(trial)
        return mixed(lambda x_BSD, layer: self.logits(x_BSD, layer, share_B), self.sharpness, trial.progress)

    def loss(self, trial: Trial) -> Tensor:
        """Cross-entropy, and alpha times the squared distance of each sequence's share of big to its own budget."""
        run = trial.run(self.route(trial))
        off_B = run.weight_BTLM[..., BIG].mean(dim=(1, 2)) - self._drawn(trial)
        return trial.loss(run).mean() + self.alpha * (off_B**2).mean()

    def calibrate(self, trials: Sequence[Trial]) -> None:
        """Halves the weights' bits, then finds the offset at which hard routes keep the budget on every set."""
        round_to_bfloat16(self)
        self.offset_M.copy_(calibrated(lambda trial: self._allowed, trials, self.spec.budget))

    def _allowed(self, x_BSD: Tensor, layer: int) -> Tensor:
        """The logits at the Spec's budget, minus infinity for modules whose budget is 0."""
        share_B = x_BSD.new_full((len(x_BSD),), self.spec.budget.big / self.spec.layers)
        return self.logits(x_BSD, layer, share_B).masked_fill(self.banned_M, -torch.inf)

    def _drawn(self, trial: Trial) -> Tensor:
        """The share of big that each sequence is trained for, (B,)."""
        return trial.uniform(draw=1)[:, 0, 0]
