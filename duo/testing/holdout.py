"""Whether a router looks ahead on the very tokens that it is scored on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from duo.backbone import PADDING, Backbone
from duo.data.batch import Batch
from duo.router import Router

TIES = 0.002  # share of sequences in which nearly equal choices may swap where sums run in another order


@torch.no_grad()
def looks_ahead(backbone: Backbone, router: Router, batches: Iterable[Batch]) -> float:
    """Share of sequences in which other later tokens, and other labels from there on, move an earlier decision.

    Each sequence is routed twice: as it is, and with all tokens behind one place replaced, the label at that place
    among them. The places go through the whole length from batch to batch. More than TIES is looking ahead.
    """
    backbone.eval(), router.eval()
    moved = sequences = 0
    for number, batch in enumerate(batches):
        batch = batch.to(next(backbone.parameters()).device)
        tokens = batch.tokens_BT.shape[1]
        seen = 1 + number * 37 % max(tokens - 1, 1)
        other_BT = (batch.tokens_BT + 1 + number) % backbone.config.vocabulary
        other_BT = torch.where(batch.tokens_BT == PADDING, PADDING, other_BT)
        later_BT = torch.cat((batch.tokens_BT[:, :seen], other_BT[:, seen:]), dim=1)
        labels_BT = torch.cat((batch.labels_BT[:, : seen - 1], later_BT[:, seen:], other_BT[:, :1]), dim=1)
        routes = [
            _route(backbone, router, one)[:, :seen]
            for one in (batch, batch._replace(tokens_BT=later_BT, labels_BT=labels_BT))
        ]
        moved += int((routes[0] != routes[1]).flatten(1).any(1).sum())
        sequences += len(batch.tokens_BT)
    return moved / max(sequences, 1)


def _route(backbone: Backbone, router: Router, batch: Batch) -> Tensor:
    return backbone(batch.tokens_BT, router.route(batch.trial(backbone))).weight_BTLM.argmax(-1)
