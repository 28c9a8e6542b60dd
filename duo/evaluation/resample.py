"""Intervals of any statistic of sequences, over their documents and a router's seeds; of shares, and of the largest.

Measured by `benchmarks/coverage.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from duo.evaluation.intervals import (
    LEVEL,
    Estimate,
    Spread,
    freedom_of,
    interval_around,
    spread_documents,
    spread_seeds,
    t_quantile,
)

Statistic = Callable[[np.ndarray], Any]
"""A number (or an array of shares) of the sequences where keep_B is true."""


class _Left(NamedTuple):
    """A statistic of each seed's router, on all documents and with each left out; K numbers each."""

    whole_ZK: np.ndarray
    left_ZWK: np.ndarray
    tokens_W: np.ndarray

    @property
    def values(self) -> list[float]:
        """Means over the seeds."""
        return [float(value) for value in self.whole_ZK.mean(0)]

    def spreads(self, number: int) -> list[Spread]:
        """How much one of the numbers varies over documents, and over seeds where there are several."""
        whole_Z, left_ZW = self.whole_ZK[:, number], self.left_ZWK[..., number]
        found, seeds = [spread_documents(left_ZW.mean(0), self.tokens_W)], len(whole_Z)
        if seeds > 1:
            without = [(part.sum(0) - part) / (seeds - 1) for part in (whole_Z, left_ZW)]
            found.append(spread_seeds(*without))
        return found

    def pulling(self, number: int) -> float:
        """Degrees of freedom of the variance over documents: fewer, the more of it is some of them's (by kurtosis)."""
        left_W = self.left_ZWK[..., number].mean(0)
        pull_W = left_W - left_W.mean()
        kurtosis = (pull_W**4).mean() / (pull_W**2).mean() ** 2
        return max(2 * len(pull_W) / max(kurtosis - 1, 2), 1.0)


def jackknife_documents(
    statistics: Sequence[Statistic], document_B: np.ndarray, tokens_B: np.ndarray, level: float = LEVEL
) -> Estimate:
    """Any statistic of sequences, with its interval over documents and seeds; none where no document changes it.

    Args:
        statistics: of each seed's router, of the sequences where its argument, keep_B, is true; their mean is told.
        document_B: number of the document that each sequence lies in.
        tokens_B: tokens of each sequence: long documents tell more.
        level: how often the interval is to hold the truth.

    >>> value_B, document_B = np.array([1.0, 3.0, 5.0]), np.array([0, 1, 1])
    >>> jackknife_documents([lambda keep_B: value_B[keep_B].mean()], document_B, np.ones(3)).value
    3.0
    """
    found = _leave_out(statistics, document_B, tokens_B)
    (value,), varies = found.values, len(found.tokens_W) > 1 and found.left_ZWK.mean(0).std() > 0
    # what never varied here may vary elsewhere: nobody knows how much
    return Estimate(value, interval_around(value, found.spreads(0), level) if varies else None)


def jackknife_share(
    statistics: Sequence[Statistic], document_B: np.ndarray, tokens_B: np.ndarray, level: float = LEVEL
) -> Estimate:
    """The same of a share of tokens, whose interval stays between 0 and 1, and is wide enough near them."""
    found = _leave_out(statistics, document_B, tokens_B)
    return Estimate(found.values[0], _share_interval(found, 0, level))


def jackknife_largest(
    statistics: Sequence[Statistic], document_B: np.ndarray, tokens_B: np.ndarray, level: float = LEVEL
) -> Estimate:
    """The largest of several shares, which a statistic gives together, with an interval that allows for choosing it.

    Whichever share is the largest here is so by luck, too. So the lower end is the highest one of all shares' lower
    ends, each so wide that all of them hold together (Bonferroni). The upper end needs no such care: it is the highest
    of the upper ends, among which that of the share that is truly the largest always is.
    """
    found = _leave_out(statistics, document_B, tokens_B)
    numbers = range(len(found.values))
    wide = [_share_interval(found, number, 1 - (1 - level) / len(numbers)) for number in numbers]
    plain = [_share_interval(found, number, level) for number in numbers]
    if not any(plain):
        return Estimate(max(found.values), None)
    # of a share without an interval nothing is known but that it is one
    low, high = max(ends[0] if ends else 0.0 for ends in wide), max(ends[1] if ends else 1.0 for ends in plain)
    return Estimate(max(found.values), (low, high))


def _leave_out(statistics: Sequence[Statistic], document_B: np.ndarray, tokens_B: np.ndarray) -> _Left:
    names_W, document_B = np.unique(document_B, return_inverse=True)
    whole_ZK = np.array([np.atleast_1d(of(np.ones(len(document_B), dtype=bool))) for of in statistics], dtype=float)
    rest = range(len(names_W) if len(names_W) > 1 else 0)  # nothing is left of a single document
    left = [[np.atleast_1d(of(document_B != document)) for document in rest] for of in statistics]
    left_ZWK = np.array(left, dtype=float).reshape(len(statistics), len(rest), whole_ZK.shape[1])
    return _Left(whole_ZK, left_ZWK, np.bincount(document_B, tokens_B))


def _share_interval(found: _Left, number: int, level: float) -> tuple[float, float] | None:
    """The wider of the jackknife's interval and of Clopper and Pearson's, for as many tokens as these are worth.

    Tokens of one document are alike: they are worth as many independent ones as would vary as much (Korn and Graubard
    1998). Where no token has the property, or every one, a document is worth one token.
    """
    value, tokens, tokens_W = found.values[number], float(found.tokens_W.sum()), found.tokens_W
    if len(tokens_W) < 2 or not 0 <= value <= 1:
        return None
    if value in (0, 1):
        return clopper_pearson(value, tokens**2 / float((tokens_W**2).sum()), level)
    spreads = found.spreads(number)
    variance = sum(spread.variance for spread in spreads)
    if not variance > 0:
        return None
    # where few documents pull, as of what is rare, the variance of many is as little known as that of few
    freedom = min(freedom_of(spreads), found.pulling(number))
    doubt = t_quantile(tokens, level) / t_quantile(freedom, level)
    worth = min(value * (1 - value) / variance * doubt**2, tokens)
    ends = zip(interval_around(value, spreads, level), clopper_pearson(value, worth, level), strict=True)
    (low, lower), (high, higher) = ends
    return max(min(low, lower), 0.0), min(max(high, higher), 1.0)


def clopper_pearson(share: float, number: float, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a share of so many independent draws, which need not be a whole number.

    >>> [round(end, 3) for end in clopper_pearson(0.0, 10)], [round(end, 3) for end in clopper_pearson(0.5, 10)]
    ([0.0, 0.308], [0.187, 0.813])
    """
    from scipy.special import betaincinv  # as in `t_quantile`

    count, tail = share * number, (1 - level) / 2
    low = float(betaincinv(count, number - count + 1, tail)) if share > 0 else 0.0
    high = float(betaincinv(count + 1, number - count, 1 - tail)) if share < 1 else 1.0
    return low, high
