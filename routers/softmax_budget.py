"""The learned router of the paper's stage 3: a softmax per layer, as in MoE, held to a budget by its loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from duo import Gate, Router, Spec, Trial, calibrated, one_hot, round_to_bfloat16
from duo.backbone import MODULES, SMALL


def mixed(logits: Gate, sharpness: float, progress: float) -> Gate:
    """Soft weights of the modules, at an inverse temperature that rises from 1 to `sharpness`, for training."""
    inverse_temperature = 1 + (sharpness - 1) * progress
    return lambda x_BSD, layer: (inverse_temperature * logits(x_BSD, layer)).softmax(dim=-1)


def best(logits: Gate, offset_M: Tensor) -> Gate:
    """The module of the highest calibrated logit, for evaluation."""
    return lambda x_BSD, layer: one_hot((logits(x_BSD, layer) + offset_M).argmax(dim=-1))


def check_ranges(alpha: float, sharpness: float, hidden: int, least_hidden: int = 0) -> None:
    """Raises ValueError where what all these routers take is out of its range."""
    if alpha < 0 or sharpness <= 0 or hidden < least_hidden:
        given = f"router.alpha={alpha}, router.sharpness={sharpness}, router.hidden={hidden}"
        raise ValueError(f"{given}: alpha must be 0 or more, sharpness more than 0, hidden {least_hidden} or more")


class SoftmaxBudget(Router):
    """A head per layer on the hidden state, softmax over the allowed modules, and the budget loss.

    Training mixes the modules (every allowed one has a weight), with an inverse temperature that rises; evaluation
    takes the best module after calibrated offsets. The paper prints its temperature so that it cancels; here it
    multiplies the logits.

    Args:
        spec: layers, width and budget. A module whose budget is 0 is never used.
        alpha: weight of the budget loss.
        sharpness: inverse temperature at the end of training; it starts at 1.
        hidden: width of a hidden layer in each head; 0: a linear head, as in the paper.
    """

    offset_M: Tensor
    share_M: Tensor
    alpha_M: Tensor

    def __init__(self, spec: Spec, alpha: float = 10.0, sharpness: float = 20.0, hidden: int = 0) -> None:
        super().__init__(spec)
        check_ranges(alpha, sharpness, hidden)
        self.sharpness = sharpness
        share_M = torch.tensor(spec.budget) / spec.layers
        self.allowed = share_M.nonzero().flatten().tolist()
        self.heads = nn.ModuleList(self._head(hidden) for _ in range(spec.layers))
        self.register_buffer("offset_M", torch.zeros(len(MODULES)))
        self.register_buffer("share_M", share_M, persistent=False)
        budgeted_M = (torch.arange(len(MODULES)) != SMALL) & (share_M > 0)  # what is left is small
        self.register_buffer("alpha_M", alpha * budgeted_M, persistent=False)

    def _head(self, hidden: int) -> nn.Module:
        last = nn.Linear(hidden or self.spec.width, len(self.allowed))
        nn.init.zeros_(last.weight)  # all modules alike at first
        nn.init.zeros_(last.bias)
        return nn.Sequential(nn.Linear(self.spec.width, hidden), nn.GELU(), last) if hidden else last

    def logits(self, x_BSD: Tensor, layer: int) -> Tensor:
        """logits_BSM, minus infinity for modules that are not allowed."""
        allowed = self.heads[layer](x_BSD.to(self.offset_M))
        logits_BSM = allowed.new_full((*x_BSD.shape[:2], len(MODULES)), -torch.inf)
        logits_BSM[..., self.allowed] = allowed
        return logits_BSM

    def logits_of(self, trial: Trial) -> Gate:
        """What answers logits_BSM of a trial's tokens like a gate."""
        return self.logits

    def route(self, trial: Trial) -> Gate:
        """Soft weights in training; in evaluation the module of the highest calibrated logit."""
        logits = self.logits_of(trial)
        return mixed(logits, self.sharpness, trial.progress) if self.training else best(logits, self.offset_M)

    def loss(self, trial: Trial) -> Tensor:
        """Cross-entropy and the budget loss."""
        run = trial.run(self.route(trial))
        return trial.loss(run).mean() + self.budget_loss(run.weight_BTLM.mean(dim=(1, 2)))

    def budget_loss(self, share_BM: Tensor) -> Tensor:
        """Alpha times the squared distance of each budgeted module's share to the budget, per sequence."""
        return (self.alpha_M * ((share_BM - self.share_M) ** 2).mean(0)).sum()

    def calibrate(self, trials: Sequence[Trial]) -> None:
        """Halves the weights' bits, then finds the offsets at which hard routes keep the budget on every set."""
        round_to_bfloat16(self)
        self.offset_M.copy_(calibrated(self.logits_of, trials, self.spec.budget))
