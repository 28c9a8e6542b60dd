"""Intervals over documents and seeds: of mean losses, paired differences and gaps closed.

One method for all, a jackknife: a number is computed again with each document left out, and with each seed of a router
left out. Documents are what a hold-out draws, so they are what varies: sequences of one document are alike, and move
together. The seeds of a router are drawn too, apart from those of any other. Measured by `benchmarks/coverage.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct

LEVEL = 0.95
DOUBT = 4  # how far the spread of few seeds is mistrusted; at 0, intervals of 2 seeds covered 87 %, here 92 to 97 %

Statistic = Callable[..., np.ndarray]
"""A number from the mean losses per token of some routers; it takes arrays, and works element by element."""


class Estimate(Struct, frozen=True):
    """A number with its 95 % interval; None where there is none (no gap to close, a single document)."""

    value: float | None
    """The number."""
    interval: tuple[float, float] | None
    """Its lower and its upper end."""


class Sequences(NamedTuple):
    """What a score is made of, in the order of the sequences' ids."""

    loss_ZB: np.ndarray
    """Loss of each seed, summed over the tokens of each sequence, nats."""
    tokens_B: np.ndarray
    """Scored tokens of each sequence."""
    used_TLM: np.ndarray
    """Scored tokens that use each module, by position and layer, of all seeds together."""
    sequence_B: np.ndarray
    """Ids of the sequences."""
    document_B: np.ndarray
    """Number of the document that each sequence lies in."""

    @property
    def loss_B(self) -> np.ndarray:
        """The loss averaged over seeds, summed over the tokens of each sequence."""
        mean_B: np.ndarray = self.loss_ZB.mean(0)
        return mean_B

    @property
    def share_TLM(self) -> np.ndarray:
        """Share of tokens that use each module, by position and layer; 0 where no token is scored."""
        share_TLM: np.ndarray = self.used_TLM / np.maximum(self.used_TLM.sum(-1, keepdims=True), 1)
        return share_TLM

    @property
    def documents(self) -> int:
        """How many documents the scored tokens lie in."""
        return len(np.unique(self.document_B[self.tokens_B > 0]))


class Spread(NamedTuple):
    """How much an estimate varies over what was drawn."""

    variance: float
    freedom: float
    skewness: float


def estimate_loss(router: Sequences) -> Estimate:
    """Mean loss per token."""
    return jackknife(lambda loss: loss, router)


def estimate_difference(ours: Sequences, theirs: Sequences) -> Estimate:
    """How much more a router loses per token than another on the same tokens, paired."""
    return jackknife(np.subtract, ours, theirs)


def estimate_gap_closed(ours: Sequences, fixed: Sequences, oracle: Sequences) -> Estimate:
    """(fixed - router) / (fixed - oracle), losses on the same tokens; none where the oracle is not clearly better."""
    gap = estimate_difference(fixed, oracle).interval
    if gap is None or gap[0] <= 0:
        return Estimate(None, None)
    return jackknife(share_of_gap, ours, fixed, oracle)


def share_of_gap(ours: np.ndarray, fixed: np.ndarray, oracle: np.ndarray) -> np.ndarray:
    """Gap closed, of mean losses."""
    return np.asarray((fixed - ours) / (fixed - oracle))


def jackknife(statistic: Statistic, *routers: Sequences, level: float = LEVEL) -> Estimate:
    """A statistic of routers' losses on the same tokens, with its interval over their documents and seeds.

    Of a router with one seed no spread over seeds is known, and the interval is of documents alone. A router that is
    given twice is one router: minus itself it is 0, without any doubt.

    >>> tokens_B, document_B = np.array([1, 1, 2]), np.array([0, 1, 2])
    >>> router = Sequences(np.array([[2.0, 2.0, 4.0]]), tokens_B, np.zeros((2, 1, 3), int), document_B, document_B)
    >>> jackknife(lambda loss: loss, router)
    Estimate(value=2.0, interval=(2.0, 2.0))
    """
    first = routers[0]
    for router in routers[1:]:
        pairs = zip((first.document_B, first.tokens_B), (router.document_B, router.tokens_B), strict=True)
        assert all(np.array_equal(*pair) for pair in pairs), "routers are compared on the same tokens"
    _, document_B = np.unique(first.document_B, return_inverse=True)
    tokens_W = np.bincount(document_B, first.tokens_B)
    told_W = tokens_W > 0  # of a document without a scored token nothing was drawn
    sums = [np.stack([np.bincount(document_B, loss_B)[told_W] for loss_B in router.loss_ZB]) for router in routers]
    tokens_W = tokens_W[told_W]
    means = [loss_ZW.mean(0, keepdims=True) for loss_ZW in sums]
    value = statistic(*_whole(means, tokens_W)).item()
    if len(tokens_W) < 2:
        return Estimate(value, None)
    spreads = [spread_documents(statistic(*_without_each(means, tokens_W))[0], tokens_W)]
    for router in {id(router): router for router in routers}.values():
        if len(router.loss_ZB) > 1:
            left = [  # the losses without each seed of this router, in the place of their mean
                (loss_ZW.sum(0) - loss_ZW) / (len(loss_ZW) - 1) if other is router else mean_1W
                for other, loss_ZW, mean_1W in zip(routers, sums, means, strict=True)
            ]
            spreads.append(spread_seeds(statistic(*_whole(left, tokens_W)), statistic(*_without_each(left, tokens_W))))
    return Estimate(value, interval_around(value, spreads, level))


def _whole(sums: Sequence[np.ndarray], tokens_W: np.ndarray) -> list[np.ndarray]:
    """Losses per token, (Z,) each."""
    return [loss_ZW.sum(1) / tokens_W.sum() for loss_ZW in sums]


def _without_each(sums: Sequence[np.ndarray], tokens_W: np.ndarray) -> list[np.ndarray]:
    """Losses per token with each document left out, (Z, W) each."""
    return [(loss_ZW.sum(1, keepdims=True) - loss_ZW) / (tokens_W.sum() - tokens_W) for loss_ZW in sums]


def spread_documents(left_W: np.ndarray, tokens_W: np.ndarray) -> Spread:
    """The spread over documents, from the estimates with each left out."""
    pull_W = left_W.mean() - left_W  # how far each document pulls the estimate up
    square = float((pull_W**2).mean())
    variance = (len(left_W) - 1) * square
    documents = float(tokens_W.sum() ** 2 / (tokens_W**2).sum())  # as many of one length would be worth (Kish)
    if documents < 3 or not square:
        return Spread(variance, max(documents - 1, 1), 0.0)
    skewness = float((pull_W**3).mean()) / square**1.5 * math.sqrt(documents * (documents - 1)) / (documents - 2)
    return Spread(variance, documents - 1, skewness / math.sqrt(documents))


def spread_seeds(left_Z: np.ndarray, left_ZW: np.ndarray) -> Spread:
    """The spread over a router's seeds, from the estimates with each left out, and with each document besides.

    What seeds and documents vary together is in the spread over documents already, and is taken off.
    """
    seeds, documents = left_ZW.shape
    together_ZW = left_ZW - left_ZW.mean(0) - left_ZW.mean(1, keepdims=True) + left_ZW.mean()
    together = (documents - 1) / documents * (together_ZW**2).sum()
    variance = (seeds - 1) / seeds * (((left_Z - left_Z.mean()) ** 2).sum() - together)
    return Spread(max(float(variance), 0.0), seeds - 1, 0.0)


def interval_around(value: float, spreads: Sequence[Spread], level: float) -> tuple[float, float]:
    """The interval around a value: Student's, and wider on the side to which the documents are skewed (Hall 1992)."""
    documents, variance = spreads[0], sum(spread.variance for spread in spreads)
    if not variance:
        return value, value
    quantile, error = t_quantile(freedom_of(spreads), level), math.sqrt(variance)
    skewness = documents.skewness * (documents.variance / variance) ** 1.5
    return value - error * _stretch(quantile, skewness), value + error * _stretch(quantile, -skewness)


def freedom_of(spreads: Sequence[Spread]) -> float:
    """Degrees of freedom of spreads that are added up, those of documents first (Welch and Satterthwaite)."""
    documents, *seeds = spreads
    # the spread of few seeds often comes out too small: then the degrees of freedom must not be those of documents
    doubted = [documents, *(part._replace(variance=part.variance * (1 + DOUBT / part.freedom)) for part in seeds)]
    return sum(part.variance for part in doubted) ** 2 / sum(part.variance**2 / part.freedom for part in doubted)


def _stretch(quantile: float, skewness: float) -> float:
    """The quantile below an estimate of that skewness by Hall's transformation, and never less than without."""
    if abs(skewness) < 1e-6:
        return quantile
    return max(quantile, 3 / skewness * (float(np.cbrt(1 + skewness * (quantile - skewness / 6))) - 1))


def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """How far on both sides `level` of Student's distribution reaches, of 1 and more degrees of freedom.

    >>> round(t_quantile(1), 3), round(t_quantile(2.5), 3), round(t_quantile(47), 3)
    (12.706, 3.575, 2.012)
    """
    from scipy.special import stdtrit  # half a second, for which a process that scores nothing need not wait

    return float(stdtrit(freedom, (1 + level) / 2))
