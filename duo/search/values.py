"""What a candidate is worth to each token: the label's loss, or a criterion that knows no label."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from duo.backbone import Backbone
from duo.backbone.head import rows_within

CHUNK_BYTES = 2 << 20  # of logits at once: they stay in the cache, if the vocabulary lets them

Criterion = Callable[..., Tensor]
"""criterion(logits_NV[, targets_N...]) -> value_N, the lower the better."""


def label_losses(backbone: Backbone, x_JBSD: Tensor, label_BS: Tensor) -> Tensor:
    """Cross-entropy in nats of the last layer's streams, (J, B, S); 0 where there is no label (-1)."""
    label_N = label_BS.expand(x_JBSD.shape[:3]).flatten()
    return row_losses(backbone, backbone.norm(x_JBSD).flatten(0, 2), label_N).view(x_JBSD.shape[:3])


def row_losses(backbone: Backbone, normed_ND: Tensor, label_N: Tensor) -> Tensor:
    """Cross-entropy in nats of what the head reads, (N,); 0 where there is no label (-1).

    `logsumexp - logit[label]` in chunks of rows: the log-probabilities of all tokens are never written.
    """
    losses = [normed_ND.new_empty(0)]
    scratch = None
    for rows, logits_RV in logits(backbone, normed_ND):
        label_R = label_N[rows]
        logit_R = logits_RV.gather(1, label_R[:, None].clamp(min=0)).squeeze(1)
        scratch = torch.empty_like(logits_RV) if scratch is None else scratch[: len(logits_RV)]
        losses.append((logsumexp(logits_RV, scratch) - logit_R).masked_fill(label_R < 0, 0))
    return torch.cat(losses)


def criterion_values(backbone: Backbone, x_JBSD: Tensor, criterion: Criterion, targets: Tensor | None) -> Tensor:
    """A criterion's values of the last layer's streams, (J, B, S)."""
    shape, values = x_JBSD.shape[:3], []
    targets_N = None if targets is None else targets.flatten(0, 1)  # of one candidate: they are the same for all
    for rows, logits_RV in logits(backbone, backbone.norm(x_JBSD).flatten(0, 2)):
        if targets_N is None:
            values.append(criterion(logits_RV))
        else:
            row_R = torch.arange(rows.start, rows.start + len(logits_RV), device=logits_RV.device) % len(targets_N)
            values.append(criterion(logits_RV, targets_N[row_R]))
    return torch.cat(values).view(shape)


def entropy(logits_NV: Tensor) -> Tensor:
    """Entropy of the prediction in nats, a criterion: the surest candidate is best."""
    return torch.distributions.Categorical(logits=logits_NV).entropy()


def expected_loss(logits_NV: Tensor, target_NV: Tensor) -> Tensor:
    """Loss in nats where the next token is drawn from a target distribution (probabilities), a criterion.

    It is the divergence from the target but for the target's own entropy, so that the closest candidate is best.

    >>> certain = torch.tensor([[0.0, 1.0]])
    >>> expected_loss(torch.tensor([[0.0, 0.0]]), certain), torch.tensor(2.0).log()
    (tensor([0.6931]), tensor(0.6931))
    """
    return logits_NV.logsumexp(-1) - (target_NV * logits_NV).sum(-1)


def logits(backbone: Backbone, normed_ND: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows and their logits, a few at a time, each time in the same memory."""
    weight_VD = backbone.head_weight
    size = rows_within(CHUNK_BYTES, weight_VD)
    logits_RV = normed_ND.new_empty(min(size, len(normed_ND)), len(weight_VD))
    for start in range(0, len(normed_ND), size):
        part_RD = normed_ND[start : start + size]
        yield slice(start, start + size), torch.mm(part_RD, weight_VD.T, out=logits_RV[: len(part_RD)])


def logsumexp(logits_RV: Tensor, scratch_RV: Tensor) -> Tensor:
    """The logsumexp of each row, without looking for the highest logit first, where no row over- or underflows."""
    sum_R = torch.exp(logits_RV, out=scratch_RV).sum(-1)
    if bool(((sum_R > 1e-30) & (sum_R < 1e30)).all()):
        return sum_R.log()
    return logits_RV.logsumexp(-1)
