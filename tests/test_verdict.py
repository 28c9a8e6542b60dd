"""Verdicts of numbers: a part holds by where its interval lies, a claim if all of it does; chance decides little."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duo.evaluation.intervals import Estimate, Sequences, jackknife
from duo.evaluation.resample import jackknife_documents
from duo.evaluation.verdict import Claim, Part, above, below, corrected_level, within

finite = st.floats(-10, 10)


@given(finite, finite, finite)
def test_a_part_holds_or_not_by_where_its_interval_lies(value, width, bound):
    width = abs(width)
    found = Estimate(value, (value - width, value + width))
    low, high = found.interval
    assert above("", found, bound).verdict == (
        "holds" if low > bound else "does not hold" if high < bound else "undecided"
    )
    assert below("", found, bound).verdict == (
        "holds" if high < bound else "does not hold" if low > bound else "undecided"
    )
    inside = within("", found, abs(bound)).verdict
    assert (inside == "holds") == (-abs(bound) < low and high < abs(bound))
    assert (inside == "does not hold") == (low > abs(bound) or high < -abs(bound))


@pytest.mark.parametrize("interval", [None, (math.nan, math.nan), (-math.inf, 0.0)])
def test_without_an_interval_nothing_is_decided(interval):
    assert Part("", Estimate(-1.0, interval), high=0).verdict == "undecided"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((-1, -1), "holds"),
        ((-1, 0), "undecided"),
        ((-1, 1), "does not hold"),
        ((0, 1), "does not hold"),
        ((), "undecided"),
    ],
)
def test_a_claim_holds_if_all_of_it_does(values, verdict):
    parts = [below("", Estimate(value, (value - 0.5, value + 0.5))) for value in values]
    assert Claim("", "", "", "", parts, 1).verdict == verdict


def test_a_report_of_worlds_without_effects_decides_wrongly_no_more_often_than_it_says():
    """20 numbers that are 0: of 200 such reports 5 % may decide one, and chance some more."""
    drawn, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        level, tokens = corrected_level(20), np.ones(40)
        verdicts = []
        for _ in range(20):
            value_B = drawn.normal(size=40)
            found = jackknife_documents(
                [lambda keep_B, value_B=value_B: value_B[keep_B].mean()], np.arange(40), tokens, level
            )
            verdicts.append(above("", found).verdict)
        wrong += any(verdict != "undecided" for verdict in verdicts)
    assert wrong < 22


def test_the_jackknife_of_any_statistic_is_that_of_losses_where_it_is_a_mean_loss():
    drawn = np.random.default_rng(1)
    loss_B, tokens_B, document_B = drawn.random(30), drawn.integers(1, 9, 30), np.repeat(np.arange(10), 3)
    sequences = Sequences(loss_B[None], tokens_B, np.zeros((1, 1, 3)), np.arange(30), document_B)
    of = lambda keep_B: loss_B[keep_B].sum() / tokens_B[keep_B].sum()  # noqa: E731
    theirs, ours = jackknife(lambda loss: loss, sequences), jackknife_documents([of], document_B, tokens_B)
    assert (ours.value, *ours.interval) == pytest.approx((theirs.value, *theirs.interval))
