"""What a router reaches and what it costs, on tokens it has not seen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duo.backbone import MODULES, Backbone
from duo.data.batch import Batch
from duo.evaluation.decide import Spent, asks_for_labels, decide
from duo.evaluation.intervals import Sequences, estimate_loss
from duo.evaluation.record import Record, Shelf, record_of
from duo.evaluation.score import Score, perplexity
from duo.evaluation.timing import is_unexplained
from duo.progress import track
from duo.routing.compose import replay
from duo.routing.registry import describe, hint
from duo.routing.router import Router
from duo.storage.processes import rank_and_world

NOWHERE = Shelf()
OVERSPEND = 1.01  # a hold-out may cost this much of the budget's FLOPs


@torch.no_grad()
def evaluate(
    backbone: Backbone, router: Router, batches: Sequence[Batch], seed: int = 0, shelf: Shelf = NOWHERE
) -> Score:
    """Routes, runs and scores every sequence once.

    For each batch the router answers with a gate, and the gate is run here, on a pass that the router does not see;
    only then is the meter read. Its trials hold no labels; if it asks for them, on any batch and on any process, all is
    evaluated again with them, and the score is a bound's. With several processes each takes a part of the batches, and
    all return the same score.

    Args:
        backbone: the model, whole on every process.
        router: put into eval mode.
        batches: sequences of one hold-out.
        seed: what `Trial.uniform` depends on.
        shelf: batches whose records are there are not evaluated again, and those of the others are put there.

    Raises:
        ValueError: no batches, a backbone that hooks hang on, a gate that is not exactly one-hot, or whatever the
            router's code raises.
    """
    rank, world = rank_and_world()
    for with_labels in (False, True):
        # no distributed sampler: it fills up with repeats, which would be scored twice
        ours = itertools.islice(batches, rank, None, world)
        tracked = track(ours, "batch", len(range(rank, len(batches), world)))
        place = shelf.part("with_labels" if with_labels else "without_labels")
        parts = [_records(backbone, router, tracked, seed, with_labels, place)]
        if world > 1:
            parts = parts * world
            torch.distributed.all_gather_object(parts, parts[0])
        records = [record for part in parts for record in part or ()]
        if None not in parts:
            break
    if not records:
        raise ValueError("there is no batch to evaluate")
    return _score(router, records, with_labels)


def _records(
    backbone: Backbone, router: Router, batches: Iterable[Batch], seed: int, with_labels: bool, shelf: Shelf
) -> list[Record] | None:
    """What the batches gave; None where the router asks for labels that it is not given."""
    records = list[Record]()

    def left() -> Iterator[Batch]:
        for batch in batches:
            if (kept := shelf.find(batch)) is None:
                yield batch  # its record is there when the next one is asked for
            else:
                records.append(kept)

    try:
        for batch, run, spent in decide(backbone, router, left(), seed, with_labels):
            records.append(record_of(backbone, router, batch, run, spent))
            shelf.keep(batch, records[-1])
        return records
    except ValueError as error:
        if with_labels or not asks_for_labels(error):
            raise
        return None


@torch.no_grad()
def score_routes(
    backbone: Backbone, router: Router, batches: Iterable[Batch], decided: Iterable[tuple[Tensor, Spent]]
) -> Score:
    """The score of routes that were decided elsewhere, without labels; they are replayed here.

    Args:
        backbone: the model.
        router: whose routes they are.
        batches: sequences of one hold-out, with labels.
        decided: route_BTL of each batch, and what it cost.
    """
    backbone.eval()
    device, records = next(backbone.parameters()).device, []
    for batch, (route_BTL, spent) in zip(track(batches, "batch"), decided, strict=True):
        batch = batch.to(device)
        run = backbone(batch.tokens_BT, replay(route_BTL.to(device)))
        records.append(record_of(backbone, router, batch, run, spent))
    return _score(router, records, labels_consulted=False)


def _score(router: Router, records: list[Record], labels_consulted: bool) -> Score:
    sequences, spent = _join(records), [record.spent for record in records]
    used_M, tokens = sequences.used_TLM.sum((0, 1)), int(sequences.tokens_B.sum())
    loss, bytes_of_text = float(sequences.loss_B.sum() / tokens), _total(records, "bytes")
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss under {describe(type(router))} is {loss}: {hint(router)}")
    flops, budgeted = _total(records, "flops") / tokens, _total(records, "budget_flops") / tokens
    unbudgeted = [used and not count for used, count in zip(used_M, router.spec.budget, strict=True)]
    promised = [part.promised for part in spent if part.promised is not None]
    uncounted = next((part.uncounted_seconds for part in spent if part.uncounted_seconds), 0)
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
        router_flops_per_token=sum(part.router_flops for part in spent) / tokens,
        router_parameters=max(part.router_parameters for part in spent),  # what it keeps may have grown
        router_bytes=max(part.router_bytes for part in spent),
        within_budget=flops <= OVERSPEND * budgeted and not any(unbudgeted),
        passes=sum(part.passes for part in spent) / len(sequences.loss_B),
        labels_consulted=labels_consulted,
        seconds_per_token=uncounted or sum(part.seconds for part in spent) / tokens,
        time_ratio=next(part.time_ratio for part in spent if part.time_ratio),
        unexplained_time=is_unexplained(
            [part.worked for part in spent], [part.waited for part in spent], max(part.hidden for part in spent)
        ),
        promised_loss=sum(promised) / tokens if len(promised) == len(spent) else None,
    )
    return score.made_of(sequences)


def _join(records: list[Record]) -> Sequences:
    """The sequences of all batches, in the order of their ids."""
    order = np.concatenate([record.sequence_B for record in records]).argsort(kind="stable")
    return Sequences(
        loss_ZB=np.concatenate([record.loss_B for record in records])[None, order],
        tokens_B=np.concatenate([record.tokens_B for record in records])[order],
        used_TLM=_total(records, "used_TLM").astype(np.int64),  # whole numbers: a hard route uses one module
        sequence_B=np.concatenate([record.sequence_B for record in records])[order],
        document_B=np.concatenate([record.document_B for record in records])[order],
    )


def _total(records: list[Record], field: str) -> Any:
    return sum(getattr(record, field) for record in records)
