"""What a router decides on tokens it is scored on, and what that cost: all that its code takes part in."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import torch
from msgspec import Struct, structs
from torch import Tensor

from duo.backbone import MODULES, PADDING, Backbone, Run
from duo.data.batch import Batch
from duo.evaluation.score import Cost
from duo.routing.meter import Meter
from duo.routing.registry import blame, describe, hint
from duo.routing.router import Router, route_and_run
from duo.routing.trial import NoLabels, Trial


class Spent(Struct, frozen=True, forbid_unknown_fields=True):
    """What deciding on one batch cost, as its meter and the clock say."""

    router_flops: Cost
    """The router's arithmetic, and the passes it asked for."""
    passes: Cost
    """Extra passes through the backbone, summed over sequences (the last batch may be smaller)."""
    seconds: Cost
    """Wall time of deciding and of the routed pass."""
    uncounted_seconds: Cost
    """The same per token with nothing counted, which slows a cheap router visibly; 0 where it was not measured."""
    promised: float | None = None
    """What a search promised for the routes, summed over scored tokens; only who has labels can promise."""


@torch.no_grad()
def decide(
    backbone: Backbone, router: Router, batches: Iterable[Batch], seed: int, with_labels: bool = False
) -> Iterator[tuple[Batch, Run, Spent]]:
    """Each batch on the backbone's device, its one pass under the router's route, and what deciding cost.

    Raises:
        ValueError: a gate that is not exactly one-hot, or whatever the router's code raises (see `asks_for_labels`).
    """
    backbone.eval(), router.eval()
    timed = False
    for batch in batches:
        batch = batch.to(next(backbone.parameters()).device)
        run, spent = _decide(backbone, router, batch, seed, with_labels)
        if not timed and not spent.passes:
            timed, seconds = True, _seconds_per_token(backbone, router, batch, seed, with_labels)
            spent = structs.replace(spent, uncounted_seconds=seconds)
        yield batch, run, spent


def asks_for_labels(error: BaseException | None) -> bool:
    """Whether an error says that a router asked for labels that its trial does not hold."""
    while error is not None and not isinstance(error, NoLabels):
        error = error.__cause__  # `blame` and routers wrap it
    return error is not None


def scored(batch: Batch) -> Tensor:
    """scored_BT: whether there is a label to score, which there is none of behind padding."""
    return (batch.labels_BT != PADDING) & (batch.tokens_BT != PADDING)


def _decide(backbone: Backbone, router: Router, batch: Batch, seed: int, with_labels: bool) -> tuple[Run, Spent]:
    trial, own_BT = _trial(backbone, batch, seed, with_labels), batch.tokens_BT.clone()
    start = time.perf_counter()
    with blame(router, "route"):
        run = route_and_run(backbone, router, trial)
        _check_left(trial, run.tokens_BT, own_BT)
    run.logits_BTV[0, -1, 0].item()  # waits for the device
    seconds, meter = time.perf_counter() - start, trial.meter
    _check_hard(router, run.weight_BTLM, batch.tokens_BT != PADDING)
    promised_BT = meter.promised_loss
    promised = None if promised_BT is None else float(promised_BT[scored(batch)].double().sum())
    passes = meter.passes * len(batch.tokens_BT)
    return run, Spent(meter.flops, passes, seconds, uncounted_seconds=0, promised=promised)


def _trial(backbone: Backbone, batch: Batch, seed: int, with_labels: bool, meter: Meter | None = None) -> Trial:
    of = Trial.of if with_labels else Trial.without_labels
    return of(batch, backbone, seed=seed, meter=meter)


def _seconds_per_token(backbone: Backbone, router: Router, batch: Batch, seed: int, with_labels: bool) -> float:
    """Wall time of deciding and of the routed pass, with nothing counted."""
    trial = _trial(backbone, batch, seed, with_labels, Meter(enabled=False))
    start = time.perf_counter()
    with blame(router, "route"):  # a router with a memory may fail the second time alone
        run = route_and_run(backbone, router, trial)
    run.logits_BTV[0, -1, 0].item()  # waits for the device
    return (time.perf_counter() - start) / max(int((batch.tokens_BT != PADDING).sum()), 1)


def _check_left(trial: Trial, ran_BT: Tensor, own_BT: Tensor) -> None:
    """Raises ValueError where the router has left behind what no score can be made from."""
    # `ran` too: in between the router may have put them back
    if not (torch.equal(ran_BT, own_BT) and torch.equal(trial.tokens_BT, own_BT)):
        raise ValueError("it changed the tokens of its trial: to look at fewer, make a part of it (trial.part)")
    promised = trial.meter.promised_loss
    if promised is not None and promised.shape != own_BT.shape:
        raise ValueError(
            f"it left a promised loss of shape {tuple(promised.shape)} for tokens of shape {tuple(own_BT.shape)}: "
            "leave trial.meter to trial.search"
        )


def _check_hard(router: Router, weight_BTLM: Tensor, real_BT: Tensor) -> None:
    weight_NLM = weight_BTLM[real_BT]
    # exactly: what is nearly one-hot runs two modules, and costs both
    hard = ((weight_NLM == 0) | (weight_NLM == 1)).all() and (weight_NLM.sum(-1) == 1).all()
    if not hard:
        wrong = weight_NLM[((weight_NLM != 0) & (weight_NLM != 1)).any(-1) | (weight_NLM.sum(-1) != 1)][0]
        raise ValueError(
            f"{describe(type(router))} is not exactly one-hot in eval mode: it weighs {MODULES} with "
            f"{[round(value, 6) for value in wrong.tolist()]}; {hint(router)}"
        )
