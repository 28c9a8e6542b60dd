import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duo import Budget


@given(st.integers(1, 40), st.floats(0.01, 0.49), st.floats(0.01, 0.49))
def test_shares_become_modules_and_stay_so_when_resolved_again(layers, big, skip):
    resolved = Budget(big, skip).of(layers)
    assert resolved.big == pytest.approx(big * layers)
    assert resolved.skip == pytest.approx(skip * layers)
    assert resolved.of(layers) == resolved == resolved.of(1)


@given(st.integers(1, 40), st.data())
def test_whole_numbers_are_modules_whatever_their_type(layers, data):
    big = data.draw(st.integers(0, layers))
    assert Budget(float(big)) == Budget(big)
    assert Budget(big).of(layers) == (0, layers - big, big)


def test_a_resolved_fraction_below_one_is_not_taken_for_a_share():
    assert Budget(0.05).of(12).of(12).big == pytest.approx(0.6)


@pytest.mark.parametrize("value", [-1, -0.5, 4.5, math.nan, math.inf, "six", None, True])
def test_impossible_values_are_named(value):
    for name in ("big", "skip"):
        with pytest.raises(ValueError, match=rf"budget\.{name}="):
            Budget(**{"big": 1, name: value})


@pytest.mark.parametrize(("big", "skip"), [(13, 0), (7, 6), (0.6, 0.6), (12, 0.1)])
def test_a_budget_over_the_layers_is_refused(big, skip):
    with pytest.raises(ValueError, match="12 layers"):
        Budget(big, skip).of(12)
