"""Verdicts follow from data: planted for and against every claim, and too few to tell."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_papers import AGAINST, world

from duo.evaluation.intervals import Estimate, Sequences, jackknife, jackknife_documents
from duo.evaluation.verdict import Claim, Part, above, below, corrected_level, within
from duo.report.paper import STATEMENTS, Evidence, judge

finite = st.floats(-10, 10)


@pytest.fixture(scope="module")
def true():
    """Verdicts where every claim is so."""
    return {claim.name: claim for claim in judge(world().evidence())}


def test_every_claim_holds_where_it_is_so(true):
    wrong = {name: claim.parts for name, claim in true.items() if claim.verdict != "holds"}
    assert not wrong
    assert {*true} == {said.name for said in STATEMENTS} == {*AGAINST}


@pytest.mark.parametrize("name", AGAINST)
def test_a_claim_does_not_hold_where_it_is_not_so(name):
    claims = {claim.name: claim for claim in judge(world(name).evidence())}
    # without an effect no interval is below 0, and a share of 0 in all documents has none
    expected = "undecided" if name in ("skips_persist", "hard_without_potential") else "does not hold"
    assert claims[name].verdict == expected, claims[name].parts


@pytest.mark.parametrize("name", [said.name for said in STATEMENTS])
def test_nothing_is_decided_by_a_single_document(name):
    claims = {claim.name: claim for claim in judge(world(documents=1).evidence())}
    assert claims[name].verdict == "undecided"


def test_few_documents_decide_less_than_many(true):
    few = {claim.name: claim for claim in judge(world(documents=3).evidence())}
    count = lambda claims: sum(claim.verdict == "holds" for claim in claims.values())  # noqa: E731
    assert count(few) < count(true)
    assert all(claim.verdict != "does not hold" for claim in few.values())


def test_what_was_not_measured_is_undecided_and_says_why():
    claims = judge(Evidence(12, traces=world().evidence().traces))
    missing = [claim for claim in claims if not claim.parts]
    assert missing
    for claim in missing:
        assert (claim.verdict, bool(claim.why)) == ("undecided", True)


def test_more_tests_widen_every_interval(true):
    alone = world().evidence()
    wide = {claim.name: claim.parts for claim in judge(alone)}
    assert {claim.tests for claim in true.values()} == {sum(len(claim.parts) for claim in true.values())}
    for said in STATEMENTS:
        for part, corrected in zip(said.measure(alone, "code"), wide[said.name], strict=True):
            (low, high), (lower, higher) = part.found.interval, corrected.found.interval
            assert part.found.value == pytest.approx(corrected.found.value)
            assert higher - lower > high - low or high == low


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
                lambda keep_B, value_B=value_B: value_B[keep_B].mean(), np.arange(40), tokens, level
            )
            verdicts.append(above("", found).verdict)
        wrong += any(verdict != "undecided" for verdict in verdicts)
    assert wrong < 22


def test_the_jackknife_of_any_statistic_is_that_of_losses_where_it_is_a_mean_loss():
    drawn = np.random.default_rng(1)
    loss_B, tokens_B, document_B = drawn.random(30), drawn.integers(1, 9, 30), np.repeat(np.arange(10), 3)
    sequences = Sequences(loss_B[None], tokens_B, np.zeros((1, 1, 3)), np.arange(30), document_B)
    of = lambda keep_B: loss_B[keep_B].sum() / tokens_B[keep_B].sum()  # noqa: E731
    theirs, ours = jackknife(lambda loss: loss, sequences), jackknife_documents(of, document_B, tokens_B)
    assert (ours.value, *ours.interval) == pytest.approx((theirs.value, *theirs.interval))
