"""Bootstrap intervals over sequences."""

from __future__ import annotations

import numpy as np
from scipy import stats

RESAMPLES = 2000
LEVEL = 0.95


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
    found = stats.bootstrap(
        (sum_N, tokens_N),
        lambda sums, tokens, axis: sums.sum(axis=axis) / tokens.sum(axis=axis),
        n_resamples=RESAMPLES, batch=500, confidence_level=LEVEL, paired=True, method="percentile", vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)
