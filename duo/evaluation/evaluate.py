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
from duo.evaluation.bootstrap import Sequences, mean_interval
from duo.evaluation.score import Score, perplexity
from duo.routing.calibration import module_counts
from duo.routing.meter import Meter
from duo.routing.registry import blaming, described, way_out
from duo.routing.router import Router
from duo.routing.trial import Trial, token_loss
from duo.storage.processes import together

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
    rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together() else (0, 1)
    records, seconds = [], 0.0
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
    return _score(backbone, router, records, seconds)


class _Record(NamedTuple):
    """One batch; per-sequence arrays, and sums over its scored tokens."""

    sequence_B: np.ndarray
    loss_B: np.ndarray
    tokens_B: np.ndarray
    bytes: int
    used_TLM: np.ndarray
    seen_T: np.ndarray
    flops: float
    budget_flops: float
    deciding_flops: float
    passes: float
    labels_consulted: bool
    seconds: float
    promised: float | None


def _record(backbone: Backbone, router: Router, batch: Batch, seed: int) -> _Record:
    batch = batch.to(next(backbone.parameters()).device)
    trial = Trial.of(batch, backbone, seed=seed)
    start = time.perf_counter()
    with blaming(router, "route"):
        with trial.meter.counting():
            gate = router.route(trial)
        run = backbone(batch.tokens_BT, trial.meter.counted(gate))
    labels_BT = batch.labels_BT.masked_fill(batch.tokens_BT == PADDING, PADDING)
    loss_BT = token_loss(run.logits_BTV, labels_BT)
    loss_B = loss_BT.double().sum(1).cpu().numpy()  # waits for the device
    seconds = time.perf_counter() - start
    _check_hard(router, run.weight_BTLM, batch.tokens_BT != PADDING)
    scored_BT = labels_BT != PADDING
    weight_BTLM = run.weight_BTLM.double() * scored_BT[..., None, None]
    position_BT, config = trial.position_BT, backbone.config
    numpy = lambda x: x.cpu().numpy()  # noqa: E731
    return _Record(
        numpy(batch.sequence_B), loss_B, numpy(scored_BT.sum(1)), int(batch.bytes_B.sum()),
        numpy(weight_BTLM.sum(0)), numpy(scored_BT.sum(0)),
        float(run_flops(config, run.weight_BTLM, position_BT)[scored_BT].sum()),
        budget_flops(config, router.spec.budget, position_BT[scored_BT]) * int(scored_BT.sum()),
        trial.meter.flops, trial.meter.passes * len(batch.tokens_BT), trial.meter.labels_consulted, seconds,
        None if trial.meter.promised_loss is None else float(trial.meter.promised_loss[scored_BT].double().sum()),
    )  # fmt: skip


def _seconds_per_token(backbone: Backbone, router: Router, batch: Batch, seed: int) -> float:
    """Wall time of deciding and of the routed pass, with nothing counted."""
    batch = batch.to(next(backbone.parameters()).device)
    start = time.perf_counter()
    trial = Trial.of(batch, backbone, seed=seed, meter=Meter(enabled=False))
    run = backbone(batch.tokens_BT, router.route(trial))
    run.logits_BTV[0, -1, 0].item()  # waits for the device
    return (time.perf_counter() - start) / max(int((batch.tokens_BT != PADDING).sum()), 1)


def _score(backbone: Backbone, router: Router, records: list[_Record], seconds_per_token: float) -> Score:
    order = np.concatenate([record.sequence_B for record in records]).argsort(kind="stable")
    loss_N, tokens_N, sequence_N = (
        np.concatenate([getattr(record, name) for record in records])[order]
        for name in ("loss_B", "tokens_B", "sequence_B")
    )
    total = lambda name: sum(getattr(record, name) for record in records)  # noqa: E731
    tokens, used_TLM, layers = int(tokens_N.sum()), total("used_TLM"), backbone.config.layers
    used_M = used_TLM.sum((0, 1))
    loss, budget = float(loss_N.sum() / tokens), router.spec.budget
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss under {described(type(router))} is {loss}: {way_out(router)}")
    flops, budgeted = total("flops") / tokens, total("budget_flops") / tokens
    counts = module_counts(budget, layers)
    return Score(
        loss=loss,
        loss_interval=mean_interval(loss_N, tokens_N),
        perplexity=perplexity(loss),
        bits_per_byte=float(loss_N.sum() / math.log(2) / total("bytes")) if total("bytes") else None,
        tokens=tokens,
        share=dict(zip(MODULES, (used_M / used_M.sum()).tolist(), strict=True)),
        flops_per_token=flops,
        budget_flops_per_token=budgeted,
        deciding_flops_per_token=total("deciding_flops") / tokens,
        within_budget=flops <= OVERSPEND * budgeted and not any(used_M[m] and not counts[m] for m in range(3)),
        passes=total("passes") / len(loss_N),
        labels_consulted=any(record.labels_consulted for record in records),
        seconds_per_token=seconds_per_token or total("seconds") / tokens,
        promised_loss=None if any(record.promised is None for record in records) else total("promised") / tokens,
        sequences=Sequences(loss_N, tokens_N, used_TLM / np.maximum(total("seen_T"), 1)[:, None, None], sequence_N),
    )


def _check_hard(router: Router, weight_BTLM: Tensor, real_BT: Tensor) -> None:
    weight_NLM = weight_BTLM[real_BT]
    hard = ((weight_NLM == 0) | (weight_NLM == 1)).all() and (weight_NLM.sum(-1) == 1).all()
    if not hard:
        wrong = weight_NLM[((weight_NLM != 0) & (weight_NLM != 1)).any(-1) | (weight_NLM.sum(-1) != 1)][0]
        raise ValueError(
            f"{described(type(router))} is not exactly one-hot in eval mode: it weighs {MODULES} with "
            f"{[round(value, 6) for value in wrong.tolist()]}; {way_out(router)}"
        )
