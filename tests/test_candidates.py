"""What a choice among many patterns is worth, against passes of one pattern each."""

from itertools import product

import numpy as np
import torch
from conftest import random_tokens, toy_backbone

from duo import replay
from duo.backbone import BIG, SMALL
from duo.data.batch import Batch
from duo.evaluation.trace import compare_candidates
from duo.routing.loss import token_loss

LAYERS, SEQUENCES, TOKENS = 4, 6, 7


def batches_of():
    tokens_BT, rows = random_tokens(SEQUENCES, TOKENS + 1), torch.arange(SEQUENCES).flip(0)
    return [
        Batch(tokens_BT[at, :-1], tokens_BT[at, 1:], at, at // 2, torch.full((len(at),), 9), "toy")
        for at in rows.split(2)
    ]


@torch.no_grad()
def losses_of(backbone, batch):
    """Of every pattern of small and big, by number of big layers: loss_PBT."""
    found = {big: [] for big in range(LAYERS + 1)}
    for pattern in product((SMALL, BIG), repeat=LAYERS):
        route_BTL = torch.tensor(pattern).expand(*batch.tokens_BT.shape, LAYERS)
        logits_BTV = backbone(batch.tokens_BT, replay(route_BTL)).logits_BTV
        found[pattern.count(BIG)].append(token_loss(logits_BTV, batch.labels_BT).numpy())
    return {big: np.array(losses) for big, losses in found.items()}


def test_best_and_mean_of_each_number_of_big_layers_are_those_of_single_passes():
    backbone = toy_backbone(layers=LAYERS)
    found = compare_candidates(backbone, batches_of())
    assert found.sequence_B.tolist() == [*range(SEQUENCES)]
    assert found.document_B.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.tokens_B.tolist() == [TOKENS] * SEQUENCES
    for batch in batches_of():
        for big, loss_PBT in losses_of(backbone, batch).items():
            np.testing.assert_allclose(found.best_BG[batch.sequence_B, big], loss_PBT.min(0).sum(-1), rtol=1e-4)
            np.testing.assert_allclose(found.mean_BG[batch.sequence_B, big], loss_PBT.mean(0).sum(-1), rtol=1e-4)


def test_fewer_candidates_are_worth_less_than_all_and_more_than_one():
    found, half = compare_candidates(toy_backbone(layers=LAYERS), batches_of()), LAYERS // 2
    few_BN = found.few_BN
    assert few_BN.shape == (SEQUENCES, half - 1)
    assert (found.best_BG[:, half, None] <= few_BN).all()
    assert (few_BN.sum(0) < found.mean_BG[:, half].sum()).all()


def test_of_many_draws_few_candidates_lose_what_is_expected_of_their_number():
    backbone, half = toy_backbone(layers=LAYERS), LAYERS // 2
    found = compare_candidates(backbone, batches_of(), draws=4000)
    for batch in batches_of():
        loss_PBT = np.sort(losses_of(backbone, batch)[half], axis=0)  # 6 patterns, of which 4 are drawn
        # the best of 4 is the best of all in 10 of the 15 ways to draw, the next one in 4, the third in 1
        expected_BT = (10 * loss_PBT[0] + 4 * loss_PBT[1] + loss_PBT[2]) / 15
        np.testing.assert_allclose(found.few_BN[batch.sequence_B, 0], expected_BT.sum(-1), rtol=0.02)
