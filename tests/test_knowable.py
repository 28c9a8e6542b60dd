"""What can be known: toys with a known truth, in which the estimate is right, and bounds that hold."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from duo.evaluation.intervals import Sequences, estimate_difference
from duo.evaluation.knowable import Knowledge, compare_knowledge
from duo.search import expected_loss

TOKENS, ALIKE = 8, 1e-9  # of a toy's sequences


def sequences(loss_N):
    """Losses of tokens as a score keeps them, each sequence a document of its own."""
    loss_B = np.asarray(loss_N, dtype=float).reshape(-1, TOKENS).sum(1)
    ids = np.arange(len(loss_B))
    return Sequences(loss_B[None], np.full(len(loss_B), TOKENS), np.ones((1, 1, 3)) / 3, ids, ids)


def gain(fixed_N, chosen_N):
    return estimate_difference(sequences(fixed_N), sequences(chosen_N))


def advised(logits_NRV, advice_NV):
    """The candidate that the shipped criterion takes for each token."""
    targets = torch.tensor(advice_NV)[:, None].expand(logits_NRV.shape)
    expected = expected_loss(torch.tensor(logits_NRV).flatten(0, 1), targets.flatten(0, 1))
    return expected.view(logits_NRV.shape[:2]).argmin(1).numpy()


def losses(logits_NRV, label_N):
    """loss_NR of every candidate."""
    log_probability = logits_NRV - np.log(np.exp(logits_NRV).sum(-1, keepdims=True))
    return -log_probability[np.arange(len(label_N)), :, label_N]


def softmax(logits):
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def drawn(generator, probability_NV):
    return (
        (probability_NV.cumsum(1) < generator.random((len(probability_NV), 1)))
        .sum(1)
        .clip(max=probability_NV.shape[1] - 1)
    )


def test_where_nothing_can_be_known_nothing_is_found_though_the_label_gains_much():
    """Labels fall anywhere, whatever comes before; the candidates bet on different ones, each with equal odds."""
    generator, (tokens, candidates, vocabulary) = np.random.default_rng(0), (1024, 8, 16)
    found = []
    for _ in range(40):
        bets = np.argsort(generator.random((tokens, candidates, vocabulary)), axis=-1)
        logits_NRV = np.linspace(0, 3, vocabulary)[bets]  # one distribution in another order each
        loss_NR = losses(logits_NRV, generator.integers(0, vocabulary, tokens))
        advice_NV = softmax(logits_NRV).mean(1)
        found.append(gain(loss_NR[:, 0], loss_NR[np.arange(tokens), advised(logits_NRV, advice_NV)]))
        assert gain(loss_NR[:, 0], loss_NR.min(1)).interval[0] > 1
    # of 40 intervals of 95 % two should miss what is true, and seven will not in 300 tries
    assert sum(estimate.interval[0] <= 0 <= estimate.interval[1] for estimate in found) > 33
    assert abs(np.mean([estimate.value for estimate in found])) < 0.02


class Planted:
    """Tokens before which a key says how the next one is distributed; of the candidates each knows some keys."""

    def __init__(self, seed, tokens=8192, keys=24, candidates=6, vocabulary=16):
        generator = np.random.default_rng(seed)
        self.truth_KV = softmax(2 * generator.normal(size=(keys, vocabulary)))
        wrong_KRV = softmax(2 * generator.normal(size=(keys, candidates, vocabulary)))
        knows_KR = (np.arange(keys)[:, None] % candidates == np.arange(candidates))[..., None]
        self.logits_KRV = np.log(np.where(knows_KR, 0.7, 0.1) * self.truth_KV[:, None] + 0.3 * wrong_KRV + 0.02)
        self.train_N, self.key_N = generator.integers(0, keys, (2, tokens))
        self.train_label_N, self.label_N = (
            drawn(generator, self.truth_KV[part]) for part in (self.train_N, self.key_N)
        )
        self.loss_NR = losses(self.logits_KRV[self.key_N], self.label_N)
        expected_KR = -np.einsum("kv,krv->kr", self.truth_KV, np.log(softmax(self.logits_KRV)))
        expected_NR = expected_KR[self.key_N]
        self.fixed = int(expected_NR.mean(0).argmin())
        self.knowable = float((expected_NR[:, self.fixed] - expected_NR.min(1)).mean())

    def gain(self, choice_K):
        """Of a choice for each key over the best fixed candidate."""
        chosen_N = self.loss_NR[np.arange(len(self.key_N)), choice_K[self.key_N]]
        return gain(self.loss_NR[:, self.fixed], chosen_N)

    def counted(self):
        """What a table knows of the keys after training: how often each label came."""
        counts_KV = np.ones_like(self.truth_KV)
        np.add.at(counts_KV, (self.train_N, self.train_label_N), 1)
        return counts_KV / counts_KV.sum(1, keepdims=True)

    def regressed(self):
        """What a table knows that learns every candidate's loss for each key, as the surrogate does."""
        loss_NR = losses(self.logits_KRV[self.train_N], self.train_label_N)
        return np.stack([loss_NR[self.train_N == key].mean(0) for key in range(len(self.truth_KV))])


@pytest.mark.parametrize("seed", range(5))
def test_nine_tenths_of_planted_knowledge_are_found_with_enough_data(seed):
    toy = Planted(seed)
    assert toy.knowable > 0.2
    choices = (
        advised(toy.logits_KRV, toy.truth_KV),  # by a calibrated prediction
        advised(toy.logits_KRV, toy.counted()),  # by one that was learned
        toy.regressed().argmin(1),  # by losses that were learned
    )
    for choice_K in choices:
        found = toy.gain(choice_K)
        assert found.interval[0] <= toy.knowable
        assert 0.9 * toy.knowable <= found.value <= found.interval[1]
    # the label's oracle gains more, and what is beyond the knowable part is luck
    oracle = gain(toy.loss_NR[:, toy.fixed], toy.loss_NR.min(1))
    assert oracle.interval[0] > toy.knowable


def test_the_ceiling_is_the_knowledges_own_gain_as_a_prediction_and_the_share_is_what_routes_make_of_it():
    toy = Planted(0)
    fixed = sequences(toy.loss_NR[:, toy.fixed])
    choice_K = advised(toy.logits_KRV, toy.truth_KV)
    chosen_N = toy.loss_NR[np.arange(len(toy.key_N)), choice_K[toy.key_N]]
    predicted = sequences(-np.log(toy.truth_KV[toy.key_N, toy.label_N]))
    knowledge = Knowledge(float(predicted.loss_B.sum() / predicted.tokens_B.sum()), predicted.loss_ZB.tolist())
    known = compare_knowledge(sequences(chosen_N), fixed, knowledge, "truth")
    ceiling = float((fixed.loss_B - predicted.loss_B).sum() / fixed.tokens_B.sum())
    assert known.ceiling.value == pytest.approx(ceiling)
    assert known.share.value == pytest.approx(toy.gain(choice_K).value / ceiling)
    assert 0 < known.share.interval[0] < known.share.interval[1] < 1
    worse = compare_knowledge(sequences(chosen_N), fixed, Knowledge(9.0, (predicted.loss_ZB + 72).tolist()), "worse")
    assert worse.ceiling.value < 0
    assert worse.share.value is None  # there is no ceiling to take a share of


def distributions(*shape):
    return arrays(float, shape, elements=st.floats(-4, 4)).map(softmax)


@settings(max_examples=100, deadline=None)
@given(
    state_X=arrays(float, 6, elements=st.floats(0.05, 1)),
    truth_XV=distributions(6, 4),
    candidate_SRV=distributions(3, 4, 4),
)
def test_no_routes_lose_less_than_a_calibrated_prediction_that_knows_what_the_candidates_do(
    state_X, truth_XV, candidate_SRV
):
    """Gibbs' inequality, in exact expectations: of six states two each look alike to chooser, candidates and advice."""
    weight_X, seen_X = state_X / state_X.sum(), np.arange(6) % 3
    joint_SV = np.stack([(weight_X[:, None] * truth_XV)[seen_X == seen].sum(0) for seen in range(3)])
    advice_SV = joint_SV / joint_SV.sum(1, keepdims=True)
    least = -(joint_SV * np.log(advice_SV)).sum()
    loss_SR = -np.einsum("sv,srv->sr", joint_SV, np.log(candidate_SRV))
    assert loss_SR.min(1).sum() >= least - ALIKE  # whoever chooses, by whatever is seen
    gain_of_best = loss_SR.sum(0).min() - loss_SR.min(1).sum()
    assert gain_of_best <= loss_SR.sum(0).min() - least + ALIKE
    by_advice = advised(np.log(candidate_SRV), advice_SV)
    assert loss_SR[np.arange(3), by_advice].sum() == pytest.approx(loss_SR.min(1).sum())  # and advice finds the best


def test_a_prediction_that_knows_less_than_the_candidates_bounds_nothing():
    """Both are calibrated, but the candidates see which of two states it is, and the prediction does not."""
    truth_XV = np.array([[0.9, 0.1], [0.1, 0.9]])
    candidate = -(truth_XV * np.log(truth_XV)).sum(1).mean()  # there is but one, and nothing to choose
    prediction = -(truth_XV * np.log(truth_XV.mean(0))).sum(1).mean()
    assert candidate < prediction - 0.3
