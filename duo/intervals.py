"""Bootstrap intervals over sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 2000
LEVEL = 0.95


class Gap(NamedTuple):
    """Gap closed with its interval; both None where there is no gap to close."""

    value: float | None
    interval: tuple[float, float] | None


def gap_closed(gain_N: np.ndarray, tokens_N: np.ndarray, gap_N: np.ndarray, gap_tokens_N: np.ndarray) -> Gap:
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
        return Gap(None, None)
    parts = (gain_N, tokens_N, gap_N, gap_tokens_N)
    return Gap(float(_gap(*parts)), _bootstrapped(parts, _gap))


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


def _gap(gain: np.ndarray, tokens: np.ndarray, gap: np.ndarray, gap_tokens: np.ndarray, axis: int = -1) -> np.ndarray:
    return _mean(gain, tokens, axis) / _mean(gap, gap_tokens, axis)


def _bootstrapped(parts: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray]) -> tuple[float, float]:
    found = stats.bootstrap(
        parts, statistic,
        n_resamples=RESAMPLES, batch=500, confidence_level=LEVEL, paired=True, method="percentile", vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)
