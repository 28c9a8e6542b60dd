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
    return loss_N.view(labels_BT.shape)


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
        # what parts leave is written here: small tensors of their own would lie between freed logits, and keep the
        # allocator from using these again
        loss_N = x_ND.new_empty(len(x_ND), dtype=torch.float32)
        for x_RD, label_R, loss_R in zip(x_ND.split(rows), label_N.split(rows), loss_N.split(rows), strict=True):
            loss_R.copy_(_loss(x_RD, weight_VD, label_R))
        return loss_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, weight_VD, label_N = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        x_grad_ND = torch.empty_like(x_ND) if needs_x else None
        weight_grad_VD = torch.zeros_like(weight_VD) if needs_weight else None
        for start in range(0, len(x_ND), ctx.rows):
            rows = slice(start, start + ctx.rows)
            inputs = x_ND[rows].detach().requires_grad_(needs_x), weight_VD.detach().requires_grad_(needs_weight)
            with torch.enable_grad(), torch.autocast(*ctx.cast):
                loss_R = _loss(*inputs, label_N[rows])
            found = [*torch.autograd.grad(loss_R, [part for part in inputs if part.requires_grad], grads[0][rows])]
            if x_grad_ND is not None:
                x_grad_ND[rows] = found.pop(0)
            if weight_grad_VD is not None:
                weight_grad_VD += found[0]
        return x_grad_ND, weight_grad_VD, None, None
