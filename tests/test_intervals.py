"""Intervals cover as often as they say, for new documents and new seeds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from duo.evaluation.intervals import (
    Estimate,
    Sequences,
    estimate_difference,
    estimate_gap_closed,
    estimate_loss,
)


def toy(loss_ZB, tokens_B=None, document_B=None):
    loss_ZB = np.atleast_2d(np.asarray(loss_ZB, dtype=float))
    order = np.arange(loss_ZB.shape[1])
    tokens_B = np.ones(len(order), dtype=int) if tokens_B is None else tokens_B
    return Sequences(loss_ZB, tokens_B, np.zeros((1, 1, 3)), order, order if document_B is None else document_B)


class World:
    """Documents of unequal lengths with skewed losses that sequences share half of, and routers with seeds.

    The true loss of a router is its `level`; what differs between routers varies less than what they share.
    """

    def __init__(self, seed, documents):
        self.rng = np.random.default_rng(seed)
        self.document_B = np.repeat(np.arange(documents), self.rng.integers(6, 13, documents))
        self.tokens_B = np.full(len(self.document_B), 64)
        self.shared_B = self.vary(1.0)

    def vary(self, scale):
        """Noise of mean 0 with heavy tails, in which the sequences of a document correlate by a half."""
        of_document = self.rng.lognormal(0, 0.5, self.document_B.max() + 1)[self.document_B]
        return scale * (of_document + self.rng.lognormal(0, 0.5, len(self.document_B)) - 2 * np.exp(0.125))

    def router(self, level, seeds=1, by_seed=0.0):
        """Seeds differ everywhere alike by a fifth of the documents' own differences, and a little in each document."""
        own_B = self.vary(0.2)
        loss_ZB = [
            level + self.shared_B + own_B + by_seed * (self.rng.normal(0, 0.02) + self.vary(0.1)) for _ in range(seeds)
        ]
        return toy(np.array(loss_ZB) * self.tokens_B, self.tokens_B, self.document_B)


def covered(truth, estimate, documents, draws=700):
    """How often the intervals of so many draws hold the truth."""
    found = [estimate(World(seed, documents)).interval for seed in range(draws)]
    return np.mean([low <= truth <= high for low, high in found])


def loss_of(seeds):
    return lambda world: estimate_loss(world.router(4.0, seeds, by_seed=1.0))


def difference_of(ours, theirs):
    return lambda world: estimate_difference(world.router(4.0, ours, by_seed=1.0), world.router(4.1, theirs))


def gap_closed(world):
    ours, fixed, oracle = world.router(3.7, 3, by_seed=1.0), world.router(4.0), world.router(2.5)
    return estimate_gap_closed(ours, fixed, oracle)


@pytest.mark.parametrize(
    ("truth", "estimate"),
    [(4.0, loss_of(3)), (-0.1, difference_of(3, 1)), (0.2, gap_closed)],
    ids=["loss", "difference", "gap closed"],
)
def test_intervals_cover_new_documents_and_seeds_as_often_as_they_say(truth, estimate):
    assert 0.92 <= covered(truth, estimate, documents=32) <= 0.975
    assert covered(truth, estimate, documents=8) >= 0.9


def test_intervals_over_sequences_or_without_seeds_cover_too_little():
    def careless(world):
        router = world.router(4.0)
        return estimate_loss(router._replace(document_B=router.sequence_B))

    def seedless(world):
        ours, theirs = world.router(4.0, 2, by_seed=5.0), world.router(4.1)
        return estimate_difference(ours._replace(loss_ZB=ours.loss_B[None]), theirs)

    assert covered(4.0, careless, documents=32, draws=300) < 0.7
    assert covered(-0.1, seedless, documents=32, draws=300) < 0.8


def test_more_sequences_of_the_same_documents_do_not_narrow_an_interval():
    router = World(0, 20).router(4.0, 3, by_seed=1.0)
    twice = toy(
        *(np.concatenate([part, part], axis=-1) for part in (router.loss_ZB, router.tokens_B, router.document_B))
    )
    low, high = estimate_loss(router).interval
    assert estimate_loss(twice).interval == pytest.approx((low, high))
    alone = estimate_loss(twice._replace(document_B=twice.sequence_B)).interval
    assert alone[1] - alone[0] < 0.6 * (high - low)


@given(st.integers(0, 1000))
def test_neither_the_order_nor_the_numbers_of_documents_matter(seed):
    world = World(seed, 9)
    ours, theirs = world.router(4.0, 2, by_seed=1.0), world.router(4.1)
    order = np.random.default_rng(seed).permutation(len(ours.tokens_B))
    names = np.random.default_rng(seed + 1).permutation(1000)

    def shuffled(router):
        return toy(router.loss_ZB[:, order], router.tokens_B[order], names[router.document_B[order]])

    found = estimate_difference(shuffled(ours), shuffled(theirs))
    assert found.interval == pytest.approx(estimate_difference(ours, theirs).interval)


def test_differences_are_paired():
    world = World(3, 32)
    ours, theirs = world.router(4.0), world.router(4.1)
    width = lambda estimate: estimate.interval[1] - estimate.interval[0]  # noqa: E731
    assert width(estimate_difference(ours, theirs)) < 0.5 * width(estimate_loss(ours))
    shifted = theirs._replace(loss_ZB=theirs.loss_ZB - 0.25 * theirs.tokens_B)
    assert estimate_difference(theirs, shifted).interval == pytest.approx((0.25, 0.25))


def test_seeds_that_differ_widen_an_interval_and_those_that_agree_do_not():
    router = World(4, 32).router(4.0)
    width = lambda router: np.diff(estimate_loss(router).interval).item()  # noqa: E731
    step_B = 0.3 * router.tokens_B
    assert width(toy(np.repeat(router.loss_ZB, 3, axis=0), *router[1:2], router.document_B)) == pytest.approx(
        width(router)
    )
    apart = router._replace(loss_ZB=np.concatenate([router.loss_ZB - step_B, router.loss_ZB, router.loss_ZB + step_B]))
    assert estimate_loss(apart).value == pytest.approx(estimate_loss(router).value)
    assert width(apart) > 1.5 * width(router)


def test_a_router_minus_itself_is_nothing_however_its_seeds_differ():
    world = World(5, 12)
    ours, fixed, oracle = world.router(3.9, 3, by_seed=3.0), world.router(4.0), world.router(3.5)
    assert estimate_difference(ours, ours) == Estimate(0.0, (0.0, 0.0))
    assert estimate_gap_closed(oracle, fixed, oracle) == Estimate(1.0, (1.0, 1.0))
    assert estimate_gap_closed(fixed, fixed, oracle) == Estimate(0.0, (0.0, 0.0))


def test_a_single_document_has_no_interval():
    world = World(6, 1)
    ours, fixed, oracle = world.router(3.9, 3, by_seed=1.0), world.router(4.0), world.router(3.5)
    assert estimate_loss(ours) == Estimate(pytest.approx(ours.loss_B.sum() / ours.tokens_B.sum()), None)
    assert estimate_difference(ours, fixed).interval is None
    assert estimate_gap_closed(ours, fixed, oracle) == Estimate(None, None)


def test_documents_without_a_scored_token_change_nothing():
    ours, theirs = World(6, 9).router(4.0, 2, by_seed=1.0), World(6, 9).router(4.1)

    def longer(router):
        added = np.zeros((len(router.loss_ZB), 2)), np.zeros(2, int), np.array([100, 101])
        return toy(*(np.concatenate(pair, -1) for pair in zip((*router[:2], router.document_B), added, strict=True)))

    assert estimate_difference(longer(ours), longer(theirs)) == estimate_difference(ours, theirs)
    assert longer(ours).documents == 9
    assert estimate_loss(toy([10.0, 0.0], np.array([5, 0]))) == Estimate(2.0, None)


def test_routers_that_were_scored_on_other_tokens_are_not_subtracted():
    router = World(6, 9).router(4.0)
    for other in (router._replace(tokens_B=router.tokens_B + 1), World(7, 9).router(4.0)):
        with pytest.raises(AssertionError, match="on the same tokens"):
            estimate_difference(router, other)


def test_there_is_no_gap_closed_where_the_oracle_is_not_clearly_better():
    world = World(7, 24)
    ours, fixed = world.router(3.9), world.router(4.0)
    for level in (4.0, 4.5):
        assert estimate_gap_closed(ours, fixed, world.router(level)) == Estimate(None, None)
    closed = estimate_gap_closed(ours, fixed, world.router(3.0))
    assert closed.interval[0] < closed.value < closed.interval[1]


def test_an_interval_is_longer_towards_the_tail_of_the_documents():
    loss_B = np.random.default_rng(8).lognormal(0, 1, 40)
    low, high = estimate_loss(toy(loss_B)).interval
    half = stats.t.ppf(0.975, 39) * loss_B.std(ddof=1) / np.sqrt(40)
    assert loss_B.mean() - low == pytest.approx(half, rel=1e-5)
    assert high - loss_B.mean() > 1.1 * half
    upside_down = estimate_loss(toy(-loss_B)).interval
    assert upside_down == pytest.approx((-high, -low))


def test_one_long_document_among_short_ones_counts_as_few_documents():
    values = np.random.default_rng(9).normal(4, 1, 32)
    tokens_B = np.where(np.arange(32) < 2, 1000, 1)
    even, uneven = estimate_loss(toy(values)), estimate_loss(toy(values * tokens_B, tokens_B))
    assert np.diff(uneven.interval) > 5 * np.diff(even.interval)


def reference(ours_ZW, theirs_W, tokens):
    """The interval of a difference over documents of one length, from mean squares and a root."""
    gap_ZW = (ours_ZW - theirs_W) / tokens
    seeds, documents = gap_ZW.shape
    mean_W = gap_ZW.mean(0)
    over_documents = mean_W.var(ddof=1) / documents
    residual_ZW = gap_ZW - mean_W - gap_ZW.mean(1, keepdims=True) + gap_ZW.mean()
    together = (residual_ZW**2).sum() / ((seeds - 1) * (documents - 1)) / (seeds * documents)
    over_seeds = max(gap_ZW.mean(1).var(ddof=1) / seeds - together, 0)
    doubted = over_seeds * (1 + 4 / (seeds - 1))
    freedom = (over_documents + doubted) ** 2 / (over_documents**2 / (documents - 1) + doubted**2 / (seeds - 1))
    error = np.sqrt(over_documents + over_seeds)
    skewness = stats.skew(mean_W, bias=False) / np.sqrt(documents) * (over_documents / error**2) ** 1.5
    end = stats.t.ppf(0.975, freedom)

    def hall(quantile):
        """Where Hall's polynomial of the studentised mean, solved numerically, reaches a quantile."""
        cubic = lambda t: t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6 - quantile  # noqa: E731
        return optimize.brentq(cubic, -1000, 1000, xtol=1e-12)

    return gap_ZW.mean() - error * max(hall(end), end), gap_ZW.mean() + error * max(-hall(-end), end)


@pytest.mark.parametrize("by_seed", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(("seeds", "documents"), [(2, 5), (3, 32), (5, 48)])
def test_intervals_are_those_of_mean_squares_and_of_halls_polynomial(by_seed, seeds, documents):
    rng = np.random.default_rng(documents)
    theirs_W = rng.lognormal(5, 0.5, documents)
    ours_ZW = theirs_W + rng.lognormal(2, 1, (seeds, documents)) + by_seed * 64 * rng.normal(size=(seeds, 1))
    found = estimate_difference(toy(ours_ZW, np.full(documents, 64)), toy(theirs_W, np.full(documents, 64)))
    assert found.interval == pytest.approx(reference(ours_ZW, theirs_W, 64), rel=5e-4)


def test_a_ratio_varies_as_it_does_where_documents_are_left_out_one_by_one():
    rng = np.random.default_rng(10)
    fixed_W, tokens_W = rng.normal(400, 30, 12), rng.integers(80, 120, 12)
    oracle_W, ours_W = fixed_W - rng.normal(60, 9, 12), fixed_W - rng.normal(20, 9, 12)
    closed = lambda kept: (fixed_W - ours_W)[kept].sum() / (fixed_W - oracle_W)[kept].sum()  # noqa: E731
    left = np.array([closed(np.arange(12) != out) for out in range(12)])
    error = np.sqrt(11 * left.var())
    freedom = tokens_W.sum() ** 2 / (tokens_W**2).sum() - 1
    found = estimate_gap_closed(*(toy(loss_W, tokens_W) for loss_W in (ours_W, fixed_W, oracle_W)))
    assert found.value == pytest.approx(closed(slice(None)))
    ends = np.abs(np.array(found.interval) - found.value) / error
    assert ends.min() == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-5)
    assert ends.max() < 1.5 * ends.min()
