"""Token by token: what a router chose for each, and what each lost; what scores sum up, as far as figures need it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from safetensors.numpy import load, save_file

from duo.backbone import BIG, PADDING, Backbone
from duo.data.batch import Batch
from duo.evaluation.decide import asks_for_labels, decide, scored
from duo.progress import track
from duo.routing.loss import run_loss
from duo.routing.meter import Meter
from duo.routing.router import Router
from duo.routing.trial import Trial
from duo.search.patterns import all_patterns
from duo.storage.files import replacing


class Trace(NamedTuple):
    """A router's routes and losses, in the order of the sequences' ids."""

    tokens_BT: np.ndarray
    """Inputs."""
    labels_BT: np.ndarray
    """The token after each input; -1 where there is none to score."""
    loss_BT: np.ndarray
    """Nats; 0 where there is nothing to score."""
    route_BTL: np.ndarray
    """The module of each token at each layer."""
    sequence_B: np.ndarray
    """Ids of the sequences."""
    document_B: np.ndarray
    """Number of the document that each sequence lies in."""

    @property
    def scored_BT(self) -> np.ndarray:
        """Whether there is a label to score."""
        return np.asarray((self.labels_BT != PADDING) & (self.tokens_BT != PADDING))

    def at(self, positions: slice) -> Trace:
        """The same of some positions alone."""
        by_token = ("tokens_BT", "labels_BT", "loss_BT", "route_BTL")
        return self._replace(**{name: getattr(self, name)[:, positions] for name in by_token})


@torch.no_grad()
def trace(backbone: Backbone, router: Router, batches: Sequence[Batch], seed: int = 0) -> Trace:
    """Routes and losses of one real pass, as `evaluate` scores it: with labels in reach only where they are asked for.

    Raises:
        ValueError: no batches, or whatever the router's code raises.
    """
    try:
        return _trace(backbone, router, batches, seed, with_labels=False)
    except ValueError as error:
        if not asks_for_labels(error):
            raise
    return _trace(backbone, router, batches, seed, with_labels=True)


def _trace(backbone: Backbone, router: Router, batches: Sequence[Batch], seed: int, with_labels: bool) -> Trace:
    parts: list[Sequence[np.ndarray]] = []
    for batch, run, _ in decide(backbone, router, track(batches, "batch"), seed, with_labels):
        labels_BT = batch.labels_BT.masked_fill(~scored(batch), PADDING)
        loss_BT, route_BTL = run_loss(run, labels_BT), run.weight_BTLM.argmax(-1).to(torch.uint8)
        found = (batch.tokens_BT, labels_BT, loss_BT, route_BTL, batch.sequence_B, batch.document_B)
        parts.append([part.cpu().numpy() for part in found])
    return Trace(*_join(parts, Trace._fields.index("sequence_B")))


class Candidates(NamedTuple):
    """What a choice among many routes is worth under `same`, by sequence, summed over its tokens; G counts of big."""

    best_BG: np.ndarray
    """Loss of the best pattern of each count, chosen for every token by its label."""
    mean_BG: np.ndarray
    """Mean loss of all patterns of each count: what a route drawn among them loses."""
    few_BN: np.ndarray
    """The same for half of the layers big, with as many candidates only as there are with 1, 2, ... layers big."""
    tokens_B: np.ndarray
    """Scored tokens."""
    sequence_B: np.ndarray
    """Ids of the sequences, in order."""
    document_B: np.ndarray
    """Number of the document that each sequence lies in."""


@torch.no_grad()
def compare_candidates(backbone: Backbone, batches: Iterable[Batch], seed: int = 0, draws: int = 8) -> Candidates:
    """How the best of many patterns falls with their number, and with the big modules in them (section 3.2.1).

    Args:
        backbone: the model; all its patterns of small and big are compared, so it cannot be deep.
        batches: sequences with labels.
        seed: of the candidates that are drawn.
        draws: times that fewer candidates are drawn; their losses are averaged.

    Raises:
        ValueError: no batches.
    """
    backbone.eval()
    layers = len(backbone.routed)
    pattern_PL = all_patterns(layers)
    big_P = (pattern_PL == BIG).sum(1).numpy()
    half = np.flatnonzero(big_P == layers // 2)
    drawn, parts = np.random.default_rng(seed), list[Sequence[np.ndarray]]()
    sizes = [int((big_P == big).sum()) for big in range(1, layers // 2)]
    chosen = [[drawn.choice(half, size, replace=False) for _ in range(draws)] for size in sizes]
    for batch in track(batches, "batch"):
        trial = Trial.of(batch.to(next(backbone.parameters()).device), backbone, meter=Meter(enabled=False))
        table_BTP = trial.search(pattern_PL, context="same", table=True).table_BTP
        assert table_BTP is not None
        scored_BT, loss_BTP = scored(batch).cpu().numpy(), table_BTP.cpu().numpy()
        by_count = [loss_BTP[..., big_P == big] for big in range(layers + 1)]
        few = [np.mean([loss_BTP[..., these].min(-1) for these in times], 0) for times in chosen]
        best, mean = ([of(loss, -1) for loss in by_count] for of in (np.min, np.mean))
        sums = [_sum(column, scored_BT) for column in (best, mean, few)]
        ids = [part.cpu().numpy() for part in (batch.sequence_B, batch.document_B)]
        parts.append((*sums, scored_BT.sum(1), *ids))
    return Candidates(*_join(parts, Candidates._fields.index("sequence_B")))


def _join(parts: list[Sequence[np.ndarray]], ids: int) -> Iterator[np.ndarray]:
    """The arrays of all batches, in the order of the sequences' ids."""
    if not parts:
        raise ValueError("there is no batch to look at")
    joined = [np.concatenate(part) for part in zip(*parts, strict=True)]
    order = np.argsort(joined[ids], kind="stable")
    return (part[order] for part in joined)


def _sum(column: Sequence[np.ndarray], scored_BT: np.ndarray) -> np.ndarray:
    """Losses by token, summed over each sequence, (B, columns)."""
    return (
        np.array([(loss_BT * scored_BT).sum(1, dtype=np.float64) for loss_BT in column]).reshape(-1, len(scored_BT)).T
    )


Arrays = TypeVar("Arrays", Trace, Candidates)


def save_arrays(found: Trace | Candidates, path: Path) -> None:
    """Writes a trace, or what candidates are worth."""
    with replacing(path) as temporary:
        save_file({name: np.ascontiguousarray(part) for name, part in found._asdict().items()}, temporary)


def load_arrays(kind: type[Arrays], path: Path) -> Arrays:
    """Reads what `save_arrays` wrote.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        arrays = load(path.read_bytes())
        return kind(**arrays)
    except Exception as error:  # safetensors has exceptions of its own
        raise ValueError(f"{path} cannot be read ({error}): delete it to make it anew") from error
