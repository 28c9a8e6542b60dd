"""What a router reaches and what it costs, on tokens it has not seen."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from duo.backbone import MODULES, PADDING, Backbone
from duo.backbone.flops import budget_flops, run_flops
from duo.data.batch import Batch
from duo.evaluation.intervals import Sequences, estimate_loss
from duo.evaluation.score import Score, perplexity
from duo.routing.meter import Meter
from duo.routing.registry import blame, describe, hint
from duo.routing.router import Router, route_and_run
from duo.routing.trial import Trial, token_loss
from duo.storage.processes import is_distributed

OVERSPEND = 1.01  # a hold-out may cost this much of the budget's FLOPs


@torch.no_grad()
def evaluate(backbone: Backbone, router: Router, batches: Iterable[Batch], seed: int = 0) -> Score:
    """Routes, runs and scores every sequence once.

    For each batch the router answers with a gate, and the gate is run here, on a pass that the router does not see;
    only then is the meter read. With several processes each takes a part of the batches, and all return the same score.

    Args:
        backbone: the model, whole on every process.
        router: put into eval mode.
        batches: sequences of one hold-out.
        seed: what `Trial.uniform` depends on.

    Raises:
        ValueError: no batches, a gate that is not exactly one-hot, or whatever the router's code raises.
    """
    backbone.eval(), router.eval()
    rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if is_distributed() else (0, 1)
    records, seconds = [], 0.0
    # no distributed sampler: it fills up with repeats, which would be scored twice
    for batch in itertools.islice(batches, rank, None, world):
        records.append(_record(backbone, router, batch, seed))
        if not seconds and not records[0].passes:  # counting slows a cheap router visibly
            seconds = _seconds_per_token(backbone, router, batch, seed)
    if world > 1:
        gathered: list[Any] = [None] * world
        torch.distributed.all_gather_object(gathered, records)
        records = [record for part in gathered for record in part]
    if not records:
        raise ValueError("there is no batch to evaluate")
    return _score(router, records, seconds)


class _Record(NamedTuple):
    """One batch; per-sequence arrays, and sums over its scored tokens."""

    sequence_B: np.ndarray
    document_B: np.ndarray
    loss_B: np.ndarray
    tokens_B: np.ndarray
    bytes: int
    used_TLM: np.ndarray
    seen_T: np.ndarray
    flops: float
    budget_flops: float
    router_flops: float
    passes: float
    labels_consulted: bool
    seconds: float
    promised: float | None


def _record(backbone: Backbone, router: Router, batch: Batch, seed: int) -> _Record:
    batch = batch.to(next(backbone.parameters()).device)
    trial, own = Trial.of(batch, backbone, seed=seed), batch.tokens_BT.clone()
    start = time.perf_counter()
    with blame(router, "route"):
        run = route_and_run(backbone, router, trial)
        _check_left(trial, run.tokens_BT, own)
    labels_BT = batch.labels_BT.masked_fill(batch.tokens_BT == PADDING, PADDING)
    loss_BT = token_loss(run.logits_BTV, labels_BT)
    loss_B = loss_BT.double().sum(1).cpu().numpy()  # waits for the device
    seconds = time.perf_counter() - start
    _check_hard(router, run.weight_BTLM, batch.tokens_BT != PADDING)
    scored_BT, meter = labels_BT != PADDING, trial.meter
    weight_BTLM = run.weight_BTLM.double() * scored_BT[..., None, None]
    position_BT, tokens = trial.position_BT, int(scored_BT.sum())
    promised_BT = meter.promised_loss
    return _Record(
        sequence_B=batch.sequence_B.cpu().numpy(),
        document_B=batch.document_B.cpu().numpy(),
        loss_B=loss_B,
        tokens_B=scored_BT.sum(1).cpu().numpy(),
        bytes=int(batch.bytes_B.sum()),
        used_TLM=weight_BTLM.sum(0).cpu().numpy(),
        seen_T=scored_BT.sum(0).cpu().numpy(),
        flops=float(run_flops(backbone.config, run.weight_BTLM, position_BT)[scored_BT].sum()),
        budget_flops=budget_flops(backbone.config, router.spec.budget, position_BT[scored_BT]) * tokens,
        router_flops=meter.flops,
        passes=meter.passes * len(batch.tokens_BT),  # by sequences, for the last batch may be smaller
        labels_consulted=meter.labels_consulted,
        seconds=seconds,
        promised=None if promised_BT is None else float(promised_BT[scored_BT].double().sum()),
    )


def _seconds_per_token(backbone: Backbone, router: Router, batch: Batch, seed: int) -> float:
    """Wall time of deciding and of the routed pass, with nothing counted."""
    batch = batch.to(next(backbone.parameters()).device)
    start = time.perf_counter()
    with blame(router, "route"):  # a router with a memory may fail the second time alone
        run = route_and_run(backbone, router, Trial.of(batch, backbone, seed=seed, meter=Meter(enabled=False)))
    run.logits_BTV[0, -1, 0].item()  # waits for the device
    return (time.perf_counter() - start) / max(int((batch.tokens_BT != PADDING).sum()), 1)


def _score(router: Router, records: list[_Record], seconds_per_token: float) -> Score:
    sequences = _join(records)
    used_TLM = _total(records, "used_TLM")
    used_M, tokens = used_TLM.sum((0, 1)), int(sequences.tokens_B.sum())
    loss, bytes_of_text = float(sequences.loss_B.sum() / tokens), _total(records, "bytes")
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss under {describe(type(router))} is {loss}: {hint(router)}")
    flops, budgeted = _total(records, "flops") / tokens, _total(records, "budget_flops") / tokens
    unbudgeted = [used and not count for used, count in zip(used_M, router.spec.budget, strict=True)]
    unpromised = any(record.promised is None for record in records)
    score = Score(
        loss=loss,
        loss_interval=estimate_loss(sequences).interval,
        perplexity=perplexity(loss),
        bits_per_byte=float(sequences.loss_B.sum() / math.log(2) / bytes_of_text) if bytes_of_text else None,
        tokens=tokens,
        documents=sequences.documents,
        share=dict(zip(MODULES, (used_M / used_M.sum()).tolist(), strict=True)),
        flops_per_token=flops,
        budget_flops_per_token=budgeted,
        router_flops_per_token=_total(records, "router_flops") / tokens,
        within_budget=flops <= OVERSPEND * budgeted and not any(unbudgeted),
        passes=_total(records, "passes") / len(sequences.loss_B),
        labels_consulted=any(record.labels_consulted for record in records),
        seconds_per_token=seconds_per_token or _total(records, "seconds") / tokens,
        promised_loss=None if unpromised else _total(records, "promised") / tokens,
    )
    return score.made_of(sequences)


def _join(records: list[_Record]) -> Sequences:
    """The sequences of all batches, in the order of their ids."""
    order = np.concatenate([record.sequence_B for record in records]).argsort(kind="stable")
    used_TLM, seen_T = _total(records, "used_TLM"), _total(records, "seen_T")
    return Sequences(
        loss_ZB=np.concatenate([record.loss_B for record in records])[None, order],
        tokens_B=np.concatenate([record.tokens_B for record in records])[order],
        used_TLM=used_TLM / np.maximum(seen_T, 1)[:, None, None],
        sequence_B=np.concatenate([record.sequence_B for record in records])[order],
        document_B=np.concatenate([record.document_B for record in records])[order],
    )


def _total(records: list[_Record], field: str) -> Any:
    return sum(getattr(record, field) for record in records)


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
