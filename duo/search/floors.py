"""Losses of many candidates of which only the lowest counts: a floor under each rules nearly all of them out.

The logsumexp of the logits is convex in what the head reads, so nowhere below its tangent at the stream of another
candidate of the same token: a product of D numbers instead of D x V. A candidate whose floor lies above a loss that was
computed cannot be the best. The candidate of the lowest floor is computed, gives a new tangent, and so on (Kelley,
1960, "The cutting-plane method for solving convex programs").
"""

from __future__ import annotations

import torch
from torch import Tensor

from duo.backbone import Backbone
from duo.search.values import logsumexp, row_losses

ROUNDS = 3  # tangents that each part of the candidates may add; what they leave is computed (LOG.md, 2026-11-30)
MOST = 16  # tangents of a token that are kept
MARGIN = 1e-3  # nats: more than what rounding may add to a floor
EXACT = (torch.float32, torch.float64)  # types in which it adds no more


class Floors:
    """Floors under the losses of the N tokens of one step.

    Args:
        backbone: whose head reads the streams.
        label_BS: the tokens' labels; -1 where there is none.
    """

    def __init__(self, backbone: Backbone, label_BS: Tensor) -> None:
        self._backbone, self._label_N = backbone, label_BS.flatten()
        self._label_ND = backbone.head_weight[self._label_N.clamp(min=0)]
        self._slope_NDA = self._label_ND.new_empty(*self._label_ND.shape, 0)
        self._level_N1A = self._label_ND.new_empty(len(self._label_N), 1, 0)

    def losses(self, x_JBSD: Tensor, beaten_BS: Tensor, more_JBS: Tensor | None) -> Tensor:
        """loss_JBS in nats, exact for every candidate that may be the best of these or beat the value so far.

        Infinite for the others; 0 where there is no label.

        Args:
            x_JBSD: the last layer's streams.
            beaten_BS: the lowest value so far.
            more_JBS: what a value adds to the loss; None: nothing.
        """
        x_NJD = self._backbone.norm(x_JBSD).flatten(1, 2).transpose(0, 1)
        more_NJ = x_NJD.new_zeros(()) if more_JBS is None else more_JBS.flatten(1).t()
        part = _Part(self._label_N, x_NJD, beaten_BS.flatten(), more_NJ)
        label_NJ = (x_NJD @ self._label_ND[..., None]).squeeze(-1)
        part.raise_to((x_NJD @ self._slope_NDA + self._level_N1A).amax(-1) - label_NJ if self._held else None)
        for _ in range(ROUNDS):
            if not part.open_NJ.any():
                break
            at_N = part.lowest_N
            x_ND = x_NJD[torch.arange(len(at_N), device=at_N.device), at_N]
            slope_ND, level_N, loss_N = self._tangent(x_ND)
            part.know(at_N, loss_N)
            part.raise_to((x_NJD @ slope_ND[..., None]).squeeze(-1) + level_N[:, None] - label_NJ)
        else:
            at = part.open_NJ.nonzero().unbind(1)  # tokens, candidates
            part.loss_NJ[at] = row_losses(self._backbone, x_NJD[at], self._label_N[at[0]])
        return part.loss_NJ.t().reshape(x_JBSD.shape[:3])

    @property
    def _held(self) -> int:
        return self._slope_NDA.shape[-1]

    def _tangent(self, x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Slope and level of each token's logsumexp at these streams, kept for later parts; and their losses."""
        weight_VD = self._backbone.head_weight
        logits_NV = x_ND @ weight_VD.t()
        sum_N = logsumexp(logits_NV, torch.empty_like(logits_NV))
        slope_ND = (logits_NV - sum_N[:, None]).exp_() @ weight_VD
        level_N = sum_N - (slope_ND * x_ND).sum(-1)
        self._slope_NDA = torch.cat((self._slope_NDA, slope_ND[..., None]), dim=-1)[..., -MOST:]
        self._level_N1A = torch.cat((self._level_N1A, level_N[:, None, None]), dim=-1)[..., -MOST:]
        return slope_ND, level_N, sum_N - logits_NV.gather(1, self._label_N[:, None].clamp(min=0)).squeeze(1)


class _Part:
    """What is known of some candidates: losses where they were computed, floors, and which of them are open."""

    def __init__(self, label_N: Tensor, x_NJD: Tensor, beaten_N: Tensor, more_NJ: Tensor) -> None:
        scored_N1 = (label_N >= 0)[:, None]
        self.loss_NJ = x_NJD.new_full(x_NJD.shape[:2], torch.inf).where(scored_N1, 0)
        self._scored_N, self._beaten_N, self._more_NJ = scored_N1[:, 0], beaten_N, more_NJ
        self._floor_NJ = torch.full_like(self.loss_NJ, -torch.inf).where(scored_N1, torch.inf)

    def raise_to(self, floor_NJ: Tensor | None) -> None:
        """Takes floors under the losses where they are higher than before."""
        if floor_NJ is not None:
            self._floor_NJ = torch.maximum(self._floor_NJ, floor_NJ)

    def know(self, at_N: Tensor, loss_N: Tensor) -> None:
        """Takes the loss of one candidate of each token."""
        loss_N = loss_N.where(self._scored_N, 0)
        self.loss_NJ.scatter_(1, at_N[:, None], loss_N[:, None])
        self._floor_NJ.scatter_(1, at_N[:, None], torch.inf)  # it is open no longer
        more_N = self._more_NJ.expand_as(self.loss_NJ).gather(1, at_N[:, None]).squeeze(1)
        self._beaten_N = torch.minimum(self._beaten_N, loss_N + more_N)

    @property
    def lowest_N(self) -> Tensor:
        """The candidate of each token whose value has the lowest floor."""
        return (self._floor_NJ + self._more_NJ).argmin(1)

    @property
    def open_NJ(self) -> Tensor:
        """Candidates that are not computed yet, and may be the best."""
        return self._floor_NJ + self._more_NJ < self._beaten_N[:, None] + MARGIN
