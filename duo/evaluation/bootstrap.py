"""Sums over sequences, and bootstrap intervals from them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
BLOCK = 500  # resamples at a time
KEPT = 4096  # sequences up to which resamples are kept for the next interval
LEVEL = 0.95


class Estimate(NamedTuple):
    """A number with its 95 % interval; None where there is none (no gap to close, a single sequence)."""

    value: float | None
    interval: tuple[float, float] | None


class Sequences(NamedTuple):
    """What a score is made of, in the order of the sequences' ids."""

    loss_N: np.ndarray
    """Loss summed over the tokens of each sequence, nats."""
    tokens_N: np.ndarray
    """Scored tokens of each sequence."""
    used_TLM: np.ndarray
    """Share of tokens that use each module, by position and layer."""
    sequence_N: np.ndarray
    """Ids of the sequences."""


def mean_of(sum_N: np.ndarray, tokens_N: np.ndarray) -> Estimate:
    """The mean per token of what is summed over each sequence; see `means_of`."""
    return means_of(sum_N[:, None], tokens_N)[0]


def mean_interval(sum_N: np.ndarray, tokens_N: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of the mean per token, sequences resampled; None for a single sequence.

    >>> mean_interval(np.array([2.0, 2.0, 2.0]), np.array([1, 1, 1]))
    (2.0, 2.0)
    """
    return mean_of(sum_N, tokens_N).interval


def means_of(sum_NK: np.ndarray, tokens_N: np.ndarray) -> list[Estimate]:
    """Means per token of K quantities, with 95 % intervals, sequences resampled; none for a single sequence.

    Args:
        sum_NK: quantities summed over the tokens of each sequence; a difference of two routers' makes it paired.
        tokens_N: the sequences' tokens.
    """
    value_K = sum_NK.sum(0) / tokens_N.sum()
    if len(sum_NK) < 2:
        return [Estimate(float(value), None) for value in value_K]
    return _estimates(value_K, [sum_NK, tokens_N[:, None]], (len(sum_NK),), np.divide)


def gap_between(ours: Sequences, whole: Sequences, above: Sequences, below: Sequences) -> Estimate:
    """Gap closed by `ours` from the fixed pattern towards the oracle; see `gaps_between`."""
    return gaps_between([ours], whole, above, below)[0]


def gaps_between(ours: Sequence[Sequences], whole: Sequences, above: Sequences, below: Sequences) -> list[Estimate]:
    """Gap closed by each of `ours` from the fixed pattern towards the oracle.

    Args:
        ours, whole: the routers and the fixed pattern, on the same tokens.
        above, below: the fixed pattern and the oracle on a subset of their sequences.
    """
    gap_N, gap_tokens_N = np.zeros(len(whole.loss_N)), np.zeros(len(whole.loss_N))
    at = np.searchsorted(whole.sequence_N, below.sequence_N)
    gap_N[at], gap_tokens_N[at] = above.loss_N - below.loss_N, below.tokens_N
    gain_NK = np.stack([whole.loss_N - one.loss_N for one in ours], axis=1)
    return gaps_closed(gain_NK, whole.tokens_N, gap_N, gap_tokens_N)


def gaps_closed(
    gain_NK: np.ndarray, tokens_N: np.ndarray, gap_N: np.ndarray, gap_tokens_N: np.ndarray
) -> list[Estimate]:
    """(fixed - router) / (fixed - oracle), losses per token, with 95 % intervals; one resampling serves both.

    Args:
        gain_NK: fixed minus router, summed over the tokens of each sequence of the hold-out.
        tokens_N: the sequences' tokens.
        gap_N: fixed minus oracle, summed over the tokens of each sequence of the subset; 0 for the others.
        gap_tokens_N: those tokens; 0 for the others.

    Returns:
        The ratios; none where the interval of fixed minus oracle reaches 0.
    """
    inside_N = gap_tokens_N > 0
    gap = mean_interval(gap_N[inside_N], gap_tokens_N[inside_N])
    if gap is None or gap[0] <= 0:
        return [Estimate(None, None)] * gain_NK.shape[1]
    places = np.arange(len(tokens_N))  # the subset and the rest are resampled apart: no resample lacks the subset
    strata = tuple(part for part in (places[inside_N], places[~inside_N]) if len(part) > 1)
    if sum(map(len, strata)) < len(places):
        strata = (places,)

    def ratio(gain: np.ndarray, tokens: np.ndarray, gap: np.ndarray, gap_tokens: np.ndarray) -> np.ndarray:
        return (gain / tokens) / (gap / gap_tokens)

    order = np.concatenate(strata)
    sums = [part[order].reshape(len(order), -1) for part in (gain_NK, tokens_N, gap_N, gap_tokens_N)]
    return _estimates(ratio(*(part.sum(0) for part in sums)), sums, tuple(map(len, strata)), ratio)


def _estimates(
    value_K: np.ndarray, sums: Sequence[np.ndarray], sizes: tuple[int, ...], statistic: Callable[..., np.ndarray]
) -> list[Estimate]:
    """K values with their 95 % percentile intervals (those that `scipy.stats.bootstrap` would give).

    Args:
        sums: what is summed over sequences, (N, K) or (N, 1) each.
        sizes: of the strata that follow one another in N, which are resampled apart.
        statistic: of the sums of every resample.
    """
    blocks = _kept(sizes) if sum(sizes) <= KEPT else _blocks(sizes)
    found_RK = np.concatenate([statistic(*(block @ part for part in sums)) for block in blocks])
    low_K, high_K = np.percentile(found_RK, [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2], axis=0).tolist()
    return [
        Estimate(value, interval)
        for value, interval in zip(value_K.tolist(), zip(low_K, high_K, strict=True), strict=True)
    ]


def _blocks(sizes: tuple[int, ...]) -> Iterator[np.ndarray]:
    """How often each sequence is drawn, (BLOCK, N) resamples at a time; the same whenever it is asked."""
    rng = np.random.default_rng(0)
    for _ in range(RESAMPLES // BLOCK):
        yield np.concatenate([_counts(rng.integers(0, size, (BLOCK, size)), size) for size in sizes], axis=1)


def _counts(drawn: np.ndarray, size: int) -> np.ndarray:
    rows = np.arange(len(drawn))[:, None] * size
    return np.bincount((drawn + rows).ravel(), minlength=len(drawn) * size).reshape(-1, size).astype(float)


@functools.lru_cache(maxsize=4)
def _kept(sizes: tuple[int, ...]) -> list[np.ndarray]:
    return [*_blocks(sizes)]
