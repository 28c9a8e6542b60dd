"""Whether a router looks ahead on the very tokens that it is scored on."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from duo.backbone import PADDING, Backbone
from duo.data.batch import Batch
from duo.routing.router import Router, route_and_run
from duo.routing.trial import Trial

CUTS = 2  # places in each batch behind which everything is replaced
TIES = 0.0005  # share of sequences in which nearly equal choices may swap where sums run in another order


@torch.no_grad()
def looks_ahead(backbone: Backbone, router: Router, batches: Iterable[Batch], seed: int = 0) -> float:
    """Share of sequences in which other later tokens, and other labels from there on, move an earlier decision.

    Each sequence is routed as it is, and with all tokens behind a place replaced, the label at that place among them.
    The places go through the whole length from batch to batch. Every routing has a copy of the router of its own, so
    that none can remember what another saw. More than TIES is looking ahead.
    """
    backbone.eval(), router.eval()
    moved = sequences = 0
    for number, batch in enumerate(batches):
        batch = batch.to(next(backbone.parameters()).device)
        tokens = batch.tokens_BT.shape[1]
        route_BTL = _route(backbone, router, batch, seed)
        for cut in range(CUTS):
            seen = 1 + (number * CUTS + cut) * 37 % max(tokens - 1, 1)  # a prime stride: places far apart
            other_BTL = _route(backbone, router, _replace_behind(batch, seen, backbone.config.vocabulary), seed)
            moved += int((route_BTL[:, :seen] != other_BTL[:, :seen]).flatten(1).any(1).sum())
            sequences += len(batch.tokens_BT)
    return moved / max(sequences, 1)


def _replace_behind(batch: Batch, seen: int, vocabulary: int) -> Batch:
    """The batch with other tokens from place `seen` on, and the labels that go with them."""
    other_BT = torch.where(batch.tokens_BT == PADDING, PADDING, (batch.tokens_BT + 1 + seen) % vocabulary)
    later_BT = torch.cat((batch.tokens_BT[:, :seen], other_BT[:, seen:]), dim=1)
    labels_BT = torch.cat((batch.labels_BT[:, : seen - 1], later_BT[:, seen:], other_BT[:, :1]), dim=1)
    return batch._replace(tokens_BT=later_BT, labels_BT=labels_BT)


def _route(backbone: Backbone, router: Router, batch: Batch, seed: int) -> Tensor:
    trial = Trial.of(batch, backbone, seed=seed)  # metered as in an evaluation, so that nothing tells them apart
    return route_and_run(backbone, copy.deepcopy(router), trial).weight_BTLM.argmax(-1)
