"""Sums over sequences, and bootstrap intervals from them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct

RESAMPLES = 2000  # 50 of them lie beyond each end of an interval
BLOCK = 500  # resamples at a time
KEPT = 4096  # sequences up to which resamples are kept for the next interval
LEVEL = 0.95


class Estimate(Struct, frozen=True):
    """A number with its 95 % interval; None where there is none (no gap to close, a single sequence)."""

    value: float | None
    interval: tuple[float, float] | None


class Sequences(NamedTuple):
    """What a score is made of, in the order of the sequences' ids."""

    loss_B: np.ndarray
    """Loss summed over the tokens of each sequence, nats."""
    tokens_B: np.ndarray
    """Scored tokens of each sequence."""
    used_TLM: np.ndarray
    """Share of tokens that use each module, by position and layer."""
    sequence_B: np.ndarray
    """Ids of the sequences."""
    document_B: np.ndarray
    """Number of the document that each sequence lies in."""


def mean_of(sum_B: np.ndarray, tokens_B: np.ndarray) -> Estimate:
    """The mean per token of what is summed over each sequence; see `means_of`."""
    return means_of(sum_B[:, None], tokens_B)[0]


def mean_interval(sum_B: np.ndarray, tokens_B: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of the mean per token, sequences resampled; None for a single sequence.

    >>> mean_interval(np.array([2.0, 2.0, 2.0]), np.array([1, 1, 1]))
    (2.0, 2.0)
    """
    return mean_of(sum_B, tokens_B).interval


def means_of(sum_BE: np.ndarray, tokens_B: np.ndarray) -> list[Estimate]:
    """Means per token of E quantities, with 95 % intervals, sequences resampled; none for a single sequence.

    Args:
        sum_BE: quantities summed over the tokens of each sequence; a difference of two routers' makes it paired.
        tokens_B: the sequences' tokens.
    """
    value_E = sum_BE.sum(0) / tokens_B.sum()
    if len(sum_BE) < 2:
        return [Estimate(float(value), None) for value in value_E]
    return _estimates(value_E, [sum_BE, tokens_B[:, None]], (len(sum_BE),), np.divide)


def gap_between(ours: Sequences, whole: Sequences, above: Sequences, below: Sequences) -> Estimate:
    """Gap closed by `ours` from the fixed pattern towards the oracle; see `gaps_between`."""
    return gaps_between([ours], whole, above, below)[0]


def gaps_between(ours: Sequence[Sequences], whole: Sequences, above: Sequences, below: Sequences) -> list[Estimate]:
    """Gap closed by each of `ours` from the fixed pattern towards the oracle.

    Args:
        ours, whole: the routers and the fixed pattern, on the same tokens.
        above, below: the fixed pattern and the oracle on a subset of their sequences.
    """
    gap_B, gap_tokens_B = np.zeros(len(whole.loss_B)), np.zeros(len(whole.loss_B))
    at = np.searchsorted(whole.sequence_B, below.sequence_B)  # both rise, and the whole holds all of the subset
    gap_B[at], gap_tokens_B[at] = above.loss_B - below.loss_B, below.tokens_B
    gain_BE = np.stack([whole.loss_B - one.loss_B for one in ours], axis=1)
    return gaps_closed(gain_BE, whole.tokens_B, gap_B, gap_tokens_B)


def gaps_closed(
    gain_BE: np.ndarray, tokens_B: np.ndarray, gap_B: np.ndarray, gap_tokens_B: np.ndarray
) -> list[Estimate]:
    """(fixed - router) / (fixed - oracle), losses per token, with 95 % intervals; one resampling serves both.

    Args:
        gain_BE: fixed minus router, summed over the tokens of each sequence of the hold-out.
        tokens_B: the sequences' tokens.
        gap_B: fixed minus oracle, summed over the tokens of each sequence of the subset; 0 for the others.
        gap_tokens_B: those tokens; 0 for the others.

    Returns:
        The ratios; none where the interval of fixed minus oracle reaches 0.
    """
    inside_B = gap_tokens_B > 0
    gap = mean_interval(gap_B[inside_B], gap_tokens_B[inside_B])
    if gap is None or gap[0] <= 0:
        return [Estimate(None, None)] * gain_BE.shape[1]
    places = np.arange(len(tokens_B))  # the subset and the rest are resampled apart: no resample lacks the subset
    strata = tuple(part for part in (places[inside_B], places[~inside_B]) if len(part) > 1)
    if sum(map(len, strata)) < len(places):  # one sequence alone cannot be resampled
        strata = (places,)

    def ratio(gain: np.ndarray, tokens: np.ndarray, gap: np.ndarray, gap_tokens: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):  # a few resamples may have no gap at all
            found: np.ndarray = (gain / tokens) / (gap / gap_tokens)
        return np.nan_to_num(found, nan=0.0, posinf=np.inf, neginf=-np.inf)  # nothing of nothing is closed

    order = np.concatenate(strata)
    sums = [part[order].reshape(len(order), -1) for part in (gain_BE, tokens_B, gap_B, gap_tokens_B)]
    return _estimates(ratio(*(part.sum(0) for part in sums)), sums, tuple(map(len, strata)), ratio)


def _estimates(
    value_E: np.ndarray, sums: Sequence[np.ndarray], sizes: tuple[int, ...], statistic: Callable[..., np.ndarray]
) -> list[Estimate]:
    """E values with their 95 % percentile intervals (those that `scipy.stats.bootstrap` would give).

    Args:
        sums: what is summed over sequences, (B, E) or (B, 1) each.
        sizes: of the strata that follow one another in B, which are resampled apart.
        statistic: of the sums of every resample.
    """
    blocks = _kept(sizes) if sum(sizes) <= KEPT else _blocks(sizes)
    # counts times sums: one product resamples all E quantities alike
    found_RE = np.concatenate([statistic(*(block @ part for part in sums)) for block in blocks])
    low_E, high_E = np.percentile(found_RE, [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2], axis=0).tolist()
    return [
        Estimate(value, interval)
        for value, interval in zip(value_E.tolist(), zip(low_E, high_E, strict=True), strict=True)
    ]


def _blocks(sizes: tuple[int, ...]) -> Iterator[np.ndarray]:
    """How often each sequence is drawn, (BLOCK, B) resamples at a time; the same whenever it is asked."""
    rng = np.random.default_rng(0)  # fixed, so that an interval repeats bit for bit
    for _ in range(RESAMPLES // BLOCK):
        yield np.concatenate([_counts(rng.integers(0, size, (BLOCK, size)), size) for size in sizes], axis=1)


def _counts(drawn: np.ndarray, size: int) -> np.ndarray:
    rows = np.arange(len(drawn))[:, None] * size
    return np.bincount((drawn + rows).ravel(), minlength=len(drawn) * size).reshape(-1, size).astype(float)


@functools.lru_cache(maxsize=4)
def _kept(sizes: tuple[int, ...]) -> list[np.ndarray]:
    return [*_blocks(sizes)]
