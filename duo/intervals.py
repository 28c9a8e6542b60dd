"""Sums over sequences, and bootstrap intervals from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 2000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A number with its 95 % interval; None where there is none (no gap to close, a single sequence)."""

    value: float | None
    interval: tuple[float, float] | None


def mean_of(sum_N: np.ndarray, tokens_N: np.ndarray) -> Estimate:
    """The mean per token of what is summed over each sequence; see `mean_interval`."""
    return Estimate(float(sum_N.sum() / tokens_N.sum()), mean_interval(sum_N, tokens_N))


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


def gap_between(ours: Sequences, whole: Sequences, above: Sequences, below: Sequences) -> Estimate:
    """Gap closed by `ours` from the fixed pattern towards the oracle.

    Args:
        ours, whole: the router and the fixed pattern, on the same tokens.
        above, below: the fixed pattern and the oracle on a subset of their sequences.
    """
    gap_N, gap_tokens_N = np.zeros(len(whole.loss_N)), np.zeros(len(whole.loss_N))
    at = np.searchsorted(whole.sequence_N, below.sequence_N)
    gap_N[at], gap_tokens_N[at] = above.loss_N - below.loss_N, below.tokens_N
    return gap_closed(whole.loss_N - ours.loss_N, whole.tokens_N, gap_N, gap_tokens_N)


def gap_closed(gain_N: np.ndarray, tokens_N: np.ndarray, gap_N: np.ndarray, gap_tokens_N: np.ndarray) -> Estimate:
    """(fixed - router) / (fixed - oracle), losses per token, with a 95 % interval; one resampling serves both.

    Args:
        gain_N: fixed minus router, summed over the tokens of each sequence of the hold-out.
        tokens_N: the sequences' tokens.
        gap_N: fixed minus oracle, summed over the tokens of each sequence of the subset; 0 for the others.
        gap_tokens_N: those tokens; 0 for the others.

    Returns:
        The ratio; None where the interval of fixed minus oracle reaches 0.
    """
    inside_N = gap_tokens_N > 0
    gap = mean_interval(gap_N[inside_N], gap_tokens_N[inside_N])
    if gap is None or gap[0] <= 0:
        return Estimate(None, None)

    def ratio(*strata: np.ndarray, axis: int = -1) -> np.ndarray:
        at = np.concatenate(strata, axis=axis).astype(int)
        return _mean(gain_N[at], tokens_N[at], axis) / _mean(gap_N[at], gap_tokens_N[at], axis)

    places = np.arange(len(gain_N))  # the subset and the rest are resampled apart, so that no resample lacks the subset
    strata = tuple(part for part in (places[inside_N], places[~inside_N]) if len(part) > 1)
    if sum(map(len, strata)) < len(places):
        strata = (places,)
    return Estimate(float(ratio(places)), _bootstrapped(strata, ratio, paired=False))


def mean_interval(sum_N: np.ndarray, tokens_N: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of the mean per token, sequences resampled; None for a single sequence.

    Args:
        sum_N: a quantity summed over the tokens of each sequence; a difference of two routers' makes it paired.
        tokens_N: the sequences' tokens.

    >>> mean_interval(np.array([2.0, 2.0, 2.0]), np.array([1, 1, 1]))
    (2.0, 2.0)
    """
    if len(sum_N) < 2:
        return None
    if np.ptp(sum_N / tokens_N) == 0:  # all alike: scipy has nothing to resample
        return (float(sum_N[0] / tokens_N[0]),) * 2
    return _bootstrapped((sum_N, tokens_N), _mean)


def _mean(sums: np.ndarray, tokens: np.ndarray, axis: int = -1) -> np.ndarray:
    return sums.sum(axis=axis) / tokens.sum(axis=axis)


def _bootstrapped(
    parts: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray], paired: bool = True
) -> tuple[float, float]:
    found = stats.bootstrap(
        parts, statistic,
        n_resamples=RESAMPLES, batch=500, confidence_level=LEVEL, paired=paired, method="percentile", vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)
