"""How long a search will take, from a few of its tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from duo.backbone import Backbone
from duo.data.batch import Batch
from duo.evaluation.decide import asks_for_labels
from duo.routing.registry import blame
from duo.routing.router import Router
from duo.routing.trial import Trial

STEPS = 3  # positions of the first batch that are searched to see how long it takes


@torch.no_grad()
def foresee_seconds(backbone: Backbone, router: Router, batches: Sequence[Batch], seed: int = 0) -> float:
    """Seconds that the router needs for its routes on all the batches, by its first positions on the first one.

    It has no labels, unless it asks for them, as in `evaluate`.

    Raises:
        ValueError: whatever the router's code raises.
    """
    if not batches:
        return 0.0
    backbone.eval(), router.eval()
    first, tokens = batches[0].to(next(backbone.parameters()).device), sum(part.tokens_BT.numel() for part in batches)
    for of in (Trial.without_labels, Trial.of):
        try:
            _seconds_of(router, of(first, backbone, seed=seed), 1)  # the first call pays for what is made once
            trial = of(first, backbone, seed=seed)
            return _seconds_of(router, trial, STEPS) / trial.tokens_BT[:, :STEPS].numel() * tokens
        except ValueError as error:
            if of == Trial.of or not asks_for_labels(error):
                raise
    raise AssertionError("a trial with labels has what its router asks for")


def _seconds_of(router: Router, trial: Trial, steps: int) -> float:
    """Wall time of deciding on the first positions of a trial."""
    with blame(router, "route"):
        begin = time.perf_counter()
        router.route(trial.part(len(trial.tokens_BT), steps))
        return time.perf_counter() - begin
