"""How tokens are drawn."""

import math

import pytest
import torch
from conftest import toy_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from test_generate import toy_router, whole_pass

from duo.inference import Sampling, generate
from duo.inference.sampling import draw

QUICK = settings(max_examples=60, deadline=None)


def plain(logits, seen, sampling):
    """The probabilities of each token, by the definitions, one number after another; None near an edge."""
    numbers = [
        (x / sampling.repetition_penalty if x > 0 else x * sampling.repetition_penalty) if token in seen else x
        for token, x in enumerate(logits)
    ]
    numbers = [x / sampling.temperature for x in numbers]
    kept = {*range(len(numbers))}
    if sampling.top_k is not None:
        kth = sorted(numbers)[-min(sampling.top_k, len(numbers))]
        kept = {token for token in kept if numbers[token] >= kth}
    weight = {token: math.exp(numbers[token] - max(numbers)) for token in kept}
    total, before = sum(weight.values()), 0.0
    for token in sorted(kept, key=lambda token: (-numbers[token], token)):
        if abs(before / total - sampling.top_p) < 1e-9:
            return None
        if sampling.top_p < 1 and before / total >= sampling.top_p:
            kept.discard(token)
        before += weight[token]
    highest = max(weight.values())
    if any(abs(weight[token] / highest - sampling.min_p) < 1e-9 for token in kept):
        return None
    kept = {token for token in kept if weight[token] >= sampling.min_p * highest}
    total = sum(weight[token] for token in kept)
    return [weight[token] / total if token in kept else 0.0 for token in range(len(numbers))]


SAMPLINGS = st.builds(
    Sampling,
    repetition_penalty=st.floats(0.5, 2.0),
    temperature=st.floats(0.05, 5.0),
    top_k=st.none() | st.integers(1, 12),
    top_p=st.floats(0.01, 1.0),
    min_p=st.floats(0.0, 0.9),
)
# equal, or well apart: in between, rounding decides which is likelier
LOGITS = st.lists(st.integers(-96, 96).map(lambda eighths: eighths / 8), min_size=2, max_size=9)


@QUICK
@given(LOGITS, st.sets(st.integers(0, 8)), SAMPLINGS)
def test_probabilities_are_those_of_a_plain_reference(logits, seen, sampling):
    expected = plain(logits, seen, sampling)
    if expected is None:
        return
    seen_1V = torch.tensor([[token in seen for token in range(len(logits))]])
    found_1V = sampling.probabilities(torch.tensor([logits]), seen_1V)
    torch.testing.assert_close(found_1V[0], torch.tensor(expected).double(), atol=1e-6, rtol=1e-6)


@QUICK
@given(st.integers(0, 10_000), SAMPLINGS)
def test_tokens_that_may_be_drawn_are_those_of_hugging_face(seed, sampling):
    from transformers import generation as hf

    torch.manual_seed(seed)
    logits_BV, ids_BT = torch.randn(3, 20).double() * 4, torch.randint(20, (3, 5))
    warpers = [hf.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)]
    warpers.append(hf.TemperatureLogitsWarper(sampling.temperature))
    warpers += [hf.TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    warpers += [hf.TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    warpers += [hf.MinPLogitsWarper(sampling.min_p)] if sampling.min_p else []
    theirs_BV = logits_BV
    for warper in warpers:
        theirs_BV = warper(ids_BT, theirs_BV)
    seen_BV = torch.zeros(3, 20, dtype=torch.bool).scatter(1, ids_BT, True)
    torch.testing.assert_close(sampling.probabilities(logits_BV, seen_BV), theirs_BV.softmax(1), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.6, top_k=6, min_p=0.05)])
def test_tokens_are_drawn_as_often_as_their_probabilities_say(sampling):
    torch.manual_seed(0)
    draws, logits_1V = 20_000, torch.randn(1, 12) * 2
    seen_1V = torch.zeros(1, 12, dtype=torch.bool)
    probability_V = sampling.probabilities(logits_1V, seen_1V)[0]
    uniform_N = draw(5, torch.arange(draws), torch.arange(draws) % 7)
    count_V = sampling.choose(logits_1V.expand(draws, -1), seen_1V.expand(draws, -1), uniform_N).bincount(minlength=12)
    assert not count_V[probability_V == 0].any()
    likely_V = probability_V * draws >= 5
    expected = torch.cat((probability_V[likely_V], probability_V[~likely_V].sum()[None])) * draws
    observed = torch.cat((count_V[likely_V], count_V[~likely_V].sum()[None]))
    if not expected[-1]:
        expected, observed = expected[:-1], observed[:-1]
    assert chisquare(observed, expected).pvalue > 0.001


def test_what_is_written_is_drawn_from_the_backbones_own_distribution():
    backbone, router = toy_backbone(vocabulary=8), toy_router("fixed")
    probability_V = whole_pass(backbone, router, [1, 2, 3]).logits_BTV[0, -1].double().softmax(-1)
    written = generate(backbone, router, [[1, 2, 3]] * 2000, 1, seed=7)
    count_V = torch.tensor([one.tokens[0] for one in written]).bincount(minlength=8)
    assert chisquare(count_V, probability_V / probability_V.sum() * 2000).pvalue > 0.001


@given(st.sampled_from([0.0, 1e-300, 1e-8]), LOGITS)
def test_no_temperature_is_too_low(temperature, logits):
    sampling, seen_1V = Sampling(temperature=temperature, repetition_penalty=1e300), torch.zeros(1, len(logits)).bool()
    token_1 = sampling.choose(torch.tensor([logits]), seen_1V, torch.tensor([0.999]))
    assert max(logits) - logits[token_1] < 1e-6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": -1.0}, "temperature=-1.0 must be 0"), ({"temperature": math.inf}, "temperature=inf"),
        ({"top_k": 0}, "top_k=0 must be 1 or more"), ({"top_p": 0.0}, "top_p=0.0 must be more than 0"),
        ({"top_p": 1.5}, "top_p=1.5"), ({"top_p": math.nan}, "top_p=nan"), ({"min_p": -0.1}, "min_p=-0.1 must be from"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0 must be more than 0"),
    ],
)  # fmt: skip
def test_impossible_sampling_is_named(options, said):
    with pytest.raises(ValueError, match=said):
        Sampling(**options)
