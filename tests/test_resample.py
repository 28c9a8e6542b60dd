"""Intervals of any statistic: of rare shares, of the largest share, and of routers of several seeds."""

import numpy as np
import pytest

from duo.evaluation.resample import clopper_pearson, jackknife_documents, jackknife_largest, jackknife_share

TOKENS = 24


def draw_hits(drawn, documents, share, alike):
    """Documents of one to three sequences, and how many of a sequence's tokens have what those of a document share."""
    document_B = np.repeat(np.arange(documents), drawn.integers(1, 4, documents))
    share_W = drawn.beta(share * (1 / alike - 1), (1 - share) * (1 / alike - 1), documents)
    return document_B, drawn.binomial(TOKENS, share_W[document_B])


def covered(interval, share, documents, alike, draws=400):
    """How often intervals hold the share."""
    held, drawn = [], np.random.default_rng(0)
    for _ in range(draws):
        document_B, hits_B = draw_hits(drawn, documents, share, alike)
        of = lambda keep_B, hits_B=hits_B: hits_B[keep_B].mean() / TOKENS  # noqa: E731
        found = interval([of], document_B, np.full(len(document_B), TOKENS)).interval
        held.append(found is not None and found[0] <= share <= found[1])
    return np.mean(held)


@pytest.mark.parametrize(
    ("share", "documents", "alike"),
    [(0.01, 8, 0.2), (0.01, 16, 0.02), (0.05, 8, 0.2), (0.5, 16, 0.2), (0.95, 8, 0.2), (0.01, 30, 0.2)],
)
def test_intervals_of_shares_cover_also_near_their_ends(share, documents, alike):
    assert covered(jackknife_share, share, documents, alike) >= 0.92


def test_the_jackknife_alone_covers_rare_shares_of_few_documents_too_seldom():
    assert covered(jackknife_documents, 0.01, 8, 0.2) < 0.7


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_of_what_was_never_seen_a_document_is_worth_one_token(value):
    found = jackknife_share([lambda keep_B: value], np.arange(40), np.full(40, TOKENS))
    assert found.interval == pytest.approx(clopper_pearson(value, 40))
    assert jackknife_share([lambda keep_B: value], np.zeros(40), np.full(40, TOKENS)).interval is None


def test_an_interval_of_a_share_stays_between_0_and_1():
    drawn = np.random.default_rng(1)
    for share in (0.005, 0.3, 0.99):
        document_B, hits_B = draw_hits(drawn, 6, share, 0.3)
        of = lambda keep_B, hits_B=hits_B: hits_B[keep_B].mean() / TOKENS  # noqa: E731
        low, high = jackknife_share([of], document_B, np.full(len(document_B), TOKENS), 0.999).interval
        assert 0 <= low <= hits_B.mean() / TOKENS <= high <= 1


def test_the_largest_of_equal_shares_is_not_taken_for_larger():
    """Twelve layers of share 0.5: the largest lies above it by luck, and its interval must know."""
    drawn, wrong, naive = np.random.default_rng(2), 0, 0
    for _ in range(300):
        share_BL = drawn.binomial(TOKENS, 0.5, (20, 12)) / TOKENS
        of, tokens_B = (lambda keep_B, share_BL=share_BL: share_BL[keep_B].mean(0)), np.full(20, TOKENS)
        low, high = jackknife_largest([of], np.arange(20), tokens_B).interval
        wrong += not low <= 0.5 <= high
        chosen = jackknife_documents([lambda keep_B, of=of: of(keep_B).max()], np.arange(20), tokens_B).interval
        naive += not chosen[0] <= 0.5 <= chosen[1]
    assert wrong / 300 <= 0.05
    assert naive / 300 > 0.2


def test_the_largest_share_is_decided_where_one_stands_out():
    drawn = np.random.default_rng(3)
    share_BL = drawn.binomial(TOKENS, [0.9] + [0.5] * 11, (40, 12)) / TOKENS
    of, tokens_B = (lambda keep_B: share_BL[keep_B].mean(0)), np.full(40, TOKENS)
    low, high = jackknife_largest([of], np.arange(40), tokens_B).interval
    assert 0.8 < low < 0.9 < high


@pytest.mark.parametrize("documents", [8, 30])
def test_intervals_cover_new_seeds_and_documents(documents):
    """Routers of five seeds that differ by more than documents do: means of new ones are covered too."""
    held, drawn = [], np.random.default_rng(4)
    for _ in range(400):
        value_B, seeds = drawn.normal(0, 0.3, documents), drawn.normal(0, 0.2, 5)
        of = [lambda keep_B, value_B=value_B, seed=seed: value_B[keep_B].mean() + seed for seed in seeds]
        low, high = jackknife_documents(of, np.arange(documents), np.ones(documents)).interval
        held.append(low <= 0 <= high)
    assert 0.92 <= np.mean(held) <= 0.985
