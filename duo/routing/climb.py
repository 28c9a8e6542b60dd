"""Good fixed patterns, found on calibration data where there are too many to compare them all."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from duo.backbone import BIG, MODULES, SKIP, SMALL
from duo.progress import track
from duo.routing.trial import Trial
from duo.search.patterns import flips, pattern_counts, promising_swaps
from duo.search.planned import tell_if_long

START_TOKENS = 256  # of each calibration set, to find where a search starts
ROUNDS = 8  # at most; with 4, fewer climbs on toys end at the best pattern
SWAPS = 8  # of the most promising ones, each tried alone in a round
TOGETHER = (2, 4, 8)  # so many of them at once, tried too

log = logging.getLogger(__name__)


def mean_losses(trials: Sequence[Trial], pattern_PL: Tensor, tokens: int) -> Tensor:
    """mean_P: the loss in nats of every token following one pattern, averaged over the calibration sets.

    Args:
        trials: of one or more domains.
        pattern_PL: the patterns.
        tokens: of each domain; its first ones are taken.
    """
    losses: dict[str, list[tuple[float, Tensor]]] = {}
    for part in track(_first_tokens(trials, tokens), "batch"):
        # context same is no shortcut here: under a fixed pattern earlier tokens do follow it
        mean_P = part.search(pattern_PL, (), "same").mean_loss_P
        assert mean_P is not None
        losses.setdefault(part.domain, []).append((part.tokens_BT.numel(), mean_P))
    sets = [
        torch.stack([n * mean_P for n, mean_P in seen]).sum(0) / sum(n for n, _ in seen) for seen in losses.values()
    ]
    return torch.stack(sets).mean(0)  # sets count alike, whatever their sizes


def _first_tokens(trials: Sequence[Trial], tokens: int) -> list[Trial]:
    """The first trials of each domain that hold so many tokens together, the last one cut."""
    parts: list[Trial] = []
    for trial in trials:
        left = tokens - sum(part.tokens_BT.numel() for part in parts if part.domain == trial.domain)
        if left > 0:
            length = trial.tokens_BT.shape[1]
            parts.append(trial.part(-(-int(left) // length), length))
    return parts


def climb_to_fixed(trials: Sequence[Trial], count_CM: Tensor, tokens: int) -> Tensor:
    """A good fixed pattern of each (skip, small, big) count, (C, L), from those of `start_patterns` on.

    Args:
        trials: as in `mean_losses`.
        count_CM: modules of the patterns.
        tokens: as in `mean_losses`.
    """
    begin = time.perf_counter()
    start_CL = start_patterns(trials, count_CM, tokens)
    look = time.perf_counter() - begin  # at a flip of each layer; a round takes as many, and its swaps
    layers, swaps = start_CL.shape[1], 1 + SWAPS + len(TOGETHER)
    most = look * ROUNDS * (layers + swaps) / layers * len(start_CL)
    tell_if_long("climb", most, "good fixed patterns, at most")
    return torch.stack([climb(trials, start_L, tokens) for start_L in start_CL])


@torch.no_grad()
def start_patterns(trials: Sequence[Trial], count_CM: Tensor, tokens: int = START_TOKENS) -> Tensor:
    """The pattern of each count that alters all big where that hurts least, each layer on its own, (C, L).

    Arguments are those of `climb_to_fixed`.
    """
    others = [module for module in (SKIP, SMALL) if count_CM[:, module].any()]
    all_big_L = torch.full((int(count_CM[0].sum()),), BIG)
    loss_LM = _flip_losses(trials, all_big_L, others, tokens)
    return torch.stack([_altered(loss_LM, count_M) for count_M in count_CM])


def _altered(loss_LM: Tensor, count_M: Tensor) -> Tensor:
    """pattern_L of one count, from the losses of all big with one layer's module replaced."""
    others = [module for module in (SKIP, SMALL) if count_M[module]]
    hurt_L = (loss_LM[:, others] * count_M[others]).sum(-1)  # by how many take each
    rest_R = hurt_L.argsort(descending=True, stable=True)[int(count_M[BIG]) :]
    pattern_L = torch.full((len(loss_LM),), BIG).index_fill(0, rest_R, SMALL)
    rather_skip_R = (loss_LM[rest_R, SMALL] - loss_LM[rest_R, SKIP]).argsort(descending=True, stable=True)
    return pattern_L.index_fill(0, rest_R[rather_skip_R[: int(count_M[SKIP])]], SKIP)


def climb(trials: Sequence[Trial], pattern_L: Tensor, tokens: int) -> Tensor:
    """A better pattern of the same counts: at most `ROUNDS` times the best of a few promising ones near it.

    A round evaluates every flip of one layer, takes the sum of two flips for what the swap of their modules promises,
    evaluates the most promising swaps, some alone and some together, and takes the best if it is better.

    Args:
        trials: as in `mean_losses`.
        pattern_L: where to start.
        tokens: as in `mean_losses`.
    """
    modules = pattern_L.unique().tolist()
    skipped, _, big = pattern_counts(pattern_L[None])[0].tolist()
    log.info("climb  to a fixed pattern of %s big, %s skipped", big, skipped)
    for _ in track(range(ROUNDS if len(modules) > 1 else 0), "round", at_most=True):
        near_PL = _near(pattern_L, _flip_losses(trials, pattern_L, modules, tokens))
        best = int(mean_losses(trials, near_PL, tokens).argmin())
        if best == 0:
            break
        pattern_L = near_PL[best]
    return pattern_L


def _near(pattern_L: Tensor, flip_LM: Tensor) -> Tensor:
    """The pattern itself, its most promising swaps, and several of them that share no layer at once, (P, L)."""
    promise_1J, swapped_1JL = promising_swaps(pattern_L[None], flip_LM[None], len(pattern_L) ** 2)
    swapped_JL = swapped_1JL[promise_1J.isfinite()]  # the most promising first
    together_L, swaps, found = pattern_L, 0, [pattern_L, *swapped_JL[:SWAPS]]
    for swapped_L in swapped_JL:
        moved_L = swapped_L != pattern_L
        if swaps < max(TOGETHER) and not (moved_L & (together_L != pattern_L)).any():
            together_L, swaps = swapped_L.where(moved_L, together_L), swaps + 1
            found += [together_L] if swaps in TOGETHER else []
    return torch.stack(found)


def _flip_losses(trials: Sequence[Trial], pattern_L: Tensor, modules: Sequence[int], tokens: int) -> Tensor:
    """loss_LM of the pattern with one layer's module replaced; infinite for its own, and for other modules."""
    flip_PL = flips(pattern_L, modules)
    loss_LM = torch.full((len(pattern_L), len(MODULES)), torch.inf)
    if len(flip_PL):
        layer_P = (flip_PL != pattern_L).int().argmax(1)
        loss_LM[layer_P, flip_PL.gather(1, layer_P[:, None])[:, 0]] = mean_losses(trials, flip_PL, tokens)
    return loss_LM
