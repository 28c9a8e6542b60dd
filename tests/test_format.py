"""What scores are made of comes back from a file as it was, and takes little room there."""

import numpy as np
from conftest import toy_backbone
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load
from test_evaluate import SPEC, batches_of

from duo.evaluation.evaluate import evaluate
from duo.evaluation.format import attach_arrays, pack_arrays
from duo.evaluation.intervals import Sequences
from routers.random import Random

SCORE = evaluate(toy_backbone(), Random(SPEC), batches_of())


@st.composite
def sequences(draw):
    seeds, count = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    whole = lambda shape, most: arrays(np.int64, shape, elements=st.integers(0, most))  # noqa: E731
    used_TLM = draw(whole((2, 3, 3), 2**17))
    used_TLM[..., draw(st.integers(0, 2))] = 0
    used_TLM[0, 0, draw(st.integers(0, 2))] = 1
    ids = draw(st.lists(st.integers(0, 2**62), min_size=count, max_size=count, unique=True))
    return Sequences(
        draw(arrays(np.float64, (seeds, count), elements=st.floats(0, 1e6))),
        draw(whole(count, 2**33)),
        used_TLM,
        np.array(sorted(ids)),
        draw(whole(count, 2**40)),
    )


@given(sequences())
def test_arrays_come_back_as_they_were_whatever_they_hold(found):
    packed = load(pack_arrays({"held": {"a": SCORE.made_of(found)}}))
    again = attach_arrays({"held": {"a": SCORE}}, packed)["held"]["a"].sequences
    for ours, theirs in zip(found, again, strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


def test_512_sequences_of_128_tokens_take_16_kilobytes():
    route_NTL = np.random.default_rng(0).integers(1, 3, (512, 128, 12))
    used_TLM = (route_NTL[..., None] == np.arange(3)).sum(0)
    first = 3_237_415_252_438_024_192
    found = Sequences(np.ones((1, 512)), np.full(512, 128), used_TLM, first + np.arange(512), np.arange(512) // 11)
    assert len(pack_arrays({"a": SCORE.made_of(found)})) < 16_384
