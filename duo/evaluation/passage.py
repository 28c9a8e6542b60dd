"""One text, token by token: what each token loses under small, big, router and oracle, and which modules these use."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from duo.backbone import Backbone, Run
from duo.data.batch import Batch
from duo.data.windows import Tokens, Windows, batch_of, cut, tokenize
from duo.evaluation.categories import Labels, is_python, label
from duo.evaluation.decide import asks_for_labels
from duo.evaluation.difficulty import Difficulty, Losses, difficulty
from duo.progress import track
from duo.routing.loss import run_loss
from duo.routing.meter import Meter
from duo.routing.registry import blame
from duo.routing.router import Router, route_and_run
from duo.routing.trial import Trial


class Passage(NamedTuple):
    """A text's beginning, read in windows; N are all of its tokens but the first, which nothing predicts."""

    tokens: Tokens
    """All of them, the first one too."""
    losses: Losses
    router_N: np.ndarray
    """Loss under the router's routes, in nats."""
    oracle_NL: np.ndarray
    """Modules that the oracle chose."""
    router_NL: np.ndarray
    """Modules that the router chose."""
    bound: bool
    """Whether the router asked for the labels."""
    front_N: np.ndarray
    """How many tokens the model saw in front of each one."""
    windows: int
    python: bool
    """Whether the text was taken for Python."""
    labels: Labels
    """Categories and facts of all tokens, the first one too."""


class Reader(NamedTuple):
    """Who reads a text, and how."""

    backbone: Backbone
    router: Router
    tokenizer: Tokenizer
    length: int
    """Tokens of a window."""
    batch_size: int
    """Windows that are read at once."""
    seed: int = 0
    start_CL: Tensor | None = None
    """Where a local search starts, as in `difficulty`."""


@torch.no_grad()
def read_passage(reader: Reader, text: str, name: str = "", most: int | None = None) -> Passage:
    """Reads a text's first tokens, at most so many (None: all).

    Raises:
        ValueError: there are fewer than two, or whatever the router raises.
    """
    tokens = tokenize(reader.tokenizer, text, most)
    windows = cut(tokens, reader.length, name or "the text")
    found, routed = _read_windows(reader, tokens, windows)
    at, python = (windows.window_N, windows.place_N), is_python(text, name)
    losses = (found.loss_small_BT, found.loss_big_BT, found.loss_oracle_BT)
    return Passage(
        tokens=tokens,
        losses=Losses(*(loss_BT.double().numpy()[at] for loss_BT in losses)),
        router_N=routed.loss_BT.double().numpy()[at],
        oracle_NL=found.route_BTL.numpy()[at],
        router_NL=routed.route_BTL.numpy()[at],
        bound=routed.bound,
        front_N=windows.place_N + 1,
        windows=len(windows.start_B),
        python=python,
        labels=label(tokens.byte_N, text, python),
    )


class _Routed(NamedTuple):
    """What a router made of some windows."""

    loss_BT: Tensor
    route_BTL: Tensor
    bound: bool
    """Whether it asked for labels, of which it has none at first."""


def _read_windows(reader: Reader, tokens: Tokens, windows: Windows) -> tuple[Difficulty, _Routed]:
    """All windows, under the oracle and under the router, on the CPU."""
    reader.backbone.eval(), reader.router.eval()
    found, routed, count = [], [], len(windows.start_B)
    batches = np.split(np.arange(count), range(reader.batch_size, count, reader.batch_size))
    for rows in track(batches, "batch of windows"):
        batch = batch_of(reader.tokenizer, tokens, windows, rows, reader.length)
        found.append(_searched(reader, batch))
        routed.append(_routed(reader, batch))
    loss, route, bounds = zip(*routed, strict=True)
    whole = Difficulty(*(torch.cat(parts).cpu() for parts in zip(*found, strict=True)))
    return whole, _Routed(torch.cat(loss).cpu(), torch.cat(route).cpu(), any(bounds))


def _searched(reader: Reader, batch: Batch) -> Difficulty:
    trial = _trial(reader, batch, Trial.of)
    return difficulty(trial, reader.router.spec.budget, reader.start_CL)


def _routed(reader: Reader, batch: Batch) -> _Routed:
    try:
        run, bound = _run(reader, batch, Trial.without_labels), False
    except ValueError as error:
        if not asks_for_labels(error):
            raise
        run, bound = _run(reader, batch, Trial.of), True
    loss_BT = run_loss(run, batch.labels_BT.to(run.weight_BTLM.device))
    return _Routed(loss_BT, run.weight_BTLM.argmax(-1), bound)


def _run(reader: Reader, batch: Batch, of: Callable[..., Trial]) -> Run:
    with blame(reader.router, "route"):
        return route_and_run(reader.backbone, reader.router, _trial(reader, batch, of))


def _trial(reader: Reader, batch: Batch, of: Callable[..., Trial]) -> Trial:
    device = next(reader.backbone.parameters()).device
    return of(batch.to(device), reader.backbone, seed=reader.seed, meter=Meter(enabled=False))
