"""Losses of labels, of logits or of a run whose logits are too large to be held."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from duo.backbone import PADDING, Run


def token_loss(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Cross-entropy of each label in nats, (B, T); 0 where the label is -1."""
    loss_N = F.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=PADDING, reduction="none")
    return loss_N.view(labels_BT.shape)


def run_loss(run: Run, labels_BT: Tensor) -> Tensor:
    """Cross-entropy of each label in nats at a run's own positions, (B, S); 0 where the label is -1.

    Large logits are made part by part, and again for their gradients: all of them, beside as many log-probabilities
    and gradients, would take gigabytes.
    """
    head = run.head
    if head.made_BSV is not None:
        return token_loss(head.made_BSV, labels_BT)
    loss_N = _LossByParts.apply(head.x_BSD.flatten(0, 1), head.weight_VD, labels_BT.flatten(), head.rows_at_once)
    return loss_N.view(labels_BT.shape)  # type: ignore[no-any-return]


def _loss(x_RD: Tensor, weight_VD: Tensor, label_R: Tensor) -> Tensor:
    return token_loss(F.linear(x_RD, weight_VD)[None], label_R[None])[0]


class _LossByParts(torch.autograd.Function):
    """`_loss` of a few rows at a time; nothing of a part is kept, and its backward pass computes it once more.

    Not torch.utils.checkpoint, whose first call imports a compiler: seconds, and hundreds of megabytes.
    """

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_VD: Tensor, label_N: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(x_ND, weight_VD, label_N)
        kind = x_ND.device.type
        ctx.rows, ctx.cast = rows, (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        parts = zip(x_ND.split(rows), label_N.split(rows), strict=True)
        return torch.cat([_loss(x_RD, weight_VD, label_R) for x_RD, label_R in parts])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, weight_VD, label_N = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        x_grads, weight_grad_VD = [], None
        for x_RD, label_R, grad_R in zip(*(part.split(ctx.rows) for part in (x_ND, label_N, grads[0])), strict=True):
            inputs = x_RD.detach().requires_grad_(needs_x), weight_VD.detach().requires_grad_(needs_weight)
            with torch.enable_grad(), torch.autocast(*ctx.cast):
                loss_R = _loss(*inputs, label_R)
            found = [*torch.autograd.grad(loss_R, [part for part in inputs if part.requires_grad], grad_R)]
            if needs_x:
                x_grads.append(found.pop(0))
            if needs_weight:
                weight_grad_VD = found[0] if weight_grad_VD is None else weight_grad_VD.add_(found[0])
        return torch.cat(x_grads) if needs_x else None, weight_grad_VD, None, None
