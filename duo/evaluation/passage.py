"""One text, token by token: what each token loses under small, big, router and oracle, and which modules these use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from duo.backbone import Backbone
from duo.data.batch import Batch
from duo.data.windows import Tokens, batch_of, tokenize, windows_of
from duo.evaluation.categories import Labels, is_python, label
from duo.evaluation.decide import asks_for_labels
from duo.evaluation.difficulty import Difficulty, Losses, difficulty
from duo.routing.meter import Meter
from duo.routing.registry import blame
from duo.routing.router import Router, route_and_run
from duo.routing.trial import Trial, token_loss


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
    say: Callable[[int, int], Any] = lambda done, of: None
    """Is told how many of how many windows are read."""


@torch.no_grad()
def read_passage(reader: Reader, text: str, name: str = "", most: int | None = None) -> Passage:
    """Reads a text's first tokens, at most so many (None: all).

    Raises:
        ValueError: there are fewer than two, the tokenizer's tokens are not bytes, or whatever the router raises.
    """
    tokens = tokenize(reader.tokenizer, text, most)
    if len(tokens.id_N) < 2:
        raise ValueError(f"{name or 'the text'} has {len(tokens.id_N)} token: the first one is never scored, give more")
    reader.backbone.eval(), reader.router.eval()
    windows = windows_of(len(tokens.id_N), reader.length)
    found, routed, bounds = [], [], []
    for first in range(0, len(windows.start_B), reader.batch_size):
        rows = np.arange(len(windows.start_B))[first : first + reader.batch_size]
        batch = batch_of(reader.tokenizer, tokens.id_N, windows, rows, reader.length)
        found.append(_searched(reader, batch))
        loss_BT, route_BTL, bound = _routed(reader, batch)
        routed.append((loss_BT, route_BTL))
        bounds.append(bound)
        reader.say(first + len(rows), len(windows.start_B))
    at = (windows.window_N, windows.place_N)
    whole = Difficulty(*(torch.cat(parts).cpu() for parts in zip(*found, strict=True)))
    router_BT, router_BTL = (torch.cat(parts).cpu().numpy() for parts in zip(*routed, strict=True))
    losses = (whole.loss_small_BT, whole.loss_big_BT, whole.loss_oracle_BT)
    python = is_python(text, name)
    return Passage(
        tokens=tokens,
        losses=Losses(*(loss_BT.double().numpy()[at] for loss_BT in losses)),
        router_N=router_BT.astype(np.float64)[at],
        oracle_NL=whole.route_BTL.numpy()[at],
        router_NL=router_BTL[at],
        bound=any(bounds),
        front_N=windows.place_N + 1,
        windows=len(windows.start_B),
        python=python,
        labels=label(tokens.byte_N, text, python),
    )


def _searched(reader: Reader, batch: Batch) -> Difficulty:
    trial = _trial(reader, batch, Trial.of)
    return difficulty(trial, reader.router.spec.budget, reader.start_CL)


def _routed(reader: Reader, batch: Batch) -> tuple[Tensor, Tensor, bool]:
    """loss_BT and route_BTL of the router, and whether it asked for labels, of which it has none at first."""
    try:
        run = _run(reader, batch, Trial.without_labels)
        bound = False
    except ValueError as error:
        if not asks_for_labels(error):
            raise
        run, bound = _run(reader, batch, Trial.of), True
    return token_loss(run.logits_BTV, batch.labels_BT.to(run.logits_BTV.device)), run.weight_BTLM.argmax(-1), bound


def _run(reader: Reader, batch: Batch, of: Callable[..., Trial]) -> Any:
    with blame(reader.router, "route"):
        return route_and_run(reader.backbone, reader.router, _trial(reader, batch, of))


def _trial(reader: Reader, batch: Batch, of: Callable[..., Trial]) -> Trial:
    device = next(reader.backbone.parameters()).device
    return of(batch.to(device), reader.backbone, seed=reader.seed, meter=Meter(enabled=False))
