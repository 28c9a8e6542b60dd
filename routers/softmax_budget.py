"""The learned router of the paper's stage 3: a softmax per layer, as in MoE, held to a budget by its loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from duo import Gate, Router, Spec, Trial, calibrated, module_counts, one_hot


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

    def __init__(self, spec: Spec, alpha: float = 10.0, sharpness: float = 20.0, hidden: int = 0) -> None:
        super().__init__(spec)
        if alpha < 0 or sharpness <= 0 or hidden < 0:
            given = f"router.alpha={alpha}, router.hidden={hidden}, router.sharpness={sharpness}"
            raise ValueError(f"{given}: alpha and hidden must be 0 or more, sharpness more than 0")
        self.alpha, self.sharpness = alpha, sharpness
        self.share = [count / spec.layers for count in module_counts(spec.budget, spec.layers)]
        self.allowed = [module for module, share in enumerate(self.share) if share]
        self.heads = nn.ModuleList(self._head(hidden) for _ in range(spec.layers))
        self.register_buffer("offset_M", torch.zeros(len(self.share)))

    def _head(self, hidden: int) -> nn.Module:
        last = nn.Linear(hidden or self.spec.width, len(self.allowed))
        nn.init.zeros_(last.weight)  # all modules alike at first
        nn.init.zeros_(last.bias)
        return nn.Sequential(nn.Linear(self.spec.width, hidden), nn.GELU(), last) if hidden else last

    def logits(self, x_BSD: Tensor, layer: int) -> Tensor:
        """logits_BSM, minus infinity for modules that are not allowed."""
        allowed = self.heads[layer](x_BSD.to(self.offset_M))
        logits_BSM = allowed.new_full((*x_BSD.shape[:2], len(self.share)), -torch.inf)
        logits_BSM[..., self.allowed] = allowed
        return logits_BSM

    def route(self, trial: Trial) -> Gate:
        """Soft weights in training; in evaluation the module of the highest calibrated logit."""
        if not self.training:
            return lambda x_BSD, layer: one_hot((self.logits(x_BSD, layer) + self.offset_M).argmax(dim=-1))
        inverse_temperature = 1 + (self.sharpness - 1) * trial.progress
        return lambda x_BSD, layer: (inverse_temperature * self.logits(x_BSD, layer)).softmax(dim=-1)

    def loss(self, trial: Trial) -> Tensor:
        """Cross-entropy, and alpha times the squared distance of each budgeted module's share, per sequence."""
        run = trial.run(self.route(trial))
        share_BM = run.weight_BTLM.mean(dim=(1, 2))
        budgeted = [module for module in (0, 2) if self.share[module]]  # skip, big
        budget_loss = sum(((share_BM[:, module] - self.share[module]) ** 2).mean() for module in budgeted)
        return trial.loss(run).mean() + self.alpha * budget_loss

    def calibrate(self, trials: Sequence[Trial]) -> None:
        """Finds the offsets at which the hard routes keep the budget on every calibration set."""
        self.offset_M.copy_(calibrated(self.logits, trials, self.spec.budget))
