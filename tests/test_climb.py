"""Fixed patterns that are climbed to, against planted truths and against all there are."""

import itertools
import logging
from types import SimpleNamespace

import pytest
import torch
from conftest import random_tokens, toy_backbone

from duo import Budget, Trial, replay
from duo.backbone import BIG
from duo.routing import climb as climbing
from duo.routing.climb import climb, climb_to_fixed, mean_losses, start_patterns
from duo.routing.compose import even_patterns, one_hot
from duo.search import draw_patterns, patterns_of
from duo.search.patterns import counts_of, pattern_counts


@torch.no_grad()
def planted(layers, strong, seed=0, pinned=(), batches=2, skips=()):
    """Trials on a toy whose `strong` layers' big FFNs matter much, others little; labels are what all big would say.

    In layers of `skips` the small FFN does harm, so that it is better to skip them.
    """
    backbone = toy_backbone(seed=seed, layers=layers)
    for layer in range(layers):
        ffn = backbone.block(layer).ffn
        ffn.big.down.weight.mul_(1.0 if layer in strong else 0.02)
        ffn.small.down.weight.mul_(5.0 if layer in skips else 0.0)
    backbone.pin(pinned)
    trials = []
    for batch in range(batches):
        tokens_BT = random_tokens(8, 16, seed=100 + batch)
        all_big = lambda x_BSD, layer: one_hot(torch.full(x_BSD.shape[:2], BIG))  # noqa: E731
        label_BT = backbone(tokens_BT, all_big).logits_BTV.argmax(-1)
        trials.append(Trial(backbone, tokens_BT, label_BT))
    return trials


def loss_of(trial, pattern_L):
    with torch.no_grad():
        return float(trial.loss(trial.run(replay(pattern_L.expand(*trial.tokens_BT.shape, -1)))).mean())


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_optimum_is_found_and_holds_on_other_tokens(seed):
    strong = torch.randperm(12, generator=torch.Generator().manual_seed(seed))[:6]
    trial, held_out = planted(12, strong.tolist(), seed)
    count_CM, listed_PL = counts_of(12, Budget(6)), patterns_of(12, Budget(6))
    (found_L,) = climb_to_fixed([trial], count_CM, 128)
    truth_L = torch.ones(12).long().index_fill(0, strong, BIG)
    for part in (trial, held_out):  # the truth is the best of all there are, and others are far from it
        mean_P = mean_losses([part], listed_PL, 128)
        assert torch.equal(listed_PL[mean_P.argmin()], truth_L)
        regret = loss_of(part, found_L) - float(mean_P.min())
        assert regret < 0.05 * float(mean_P.mean() - mean_P.min())
        assert loss_of(part, even_patterns(count_CM)[0]) - float(mean_P.min()) > 5 * max(regret, 1e-3)


def test_thirty_layers_are_climbed_to_what_was_planted_there_however_many_patterns_there_are():
    strong = torch.randperm(30, generator=torch.Generator().manual_seed(0))[:15]
    trial, held_out = planted(30, strong.tolist())
    (found_L,) = climb_to_fixed([trial], counts_of(30, Budget(15)), 64)
    truth_L = torch.ones(30).long().index_fill(0, strong, BIG)
    torch.manual_seed(0)
    others_PL = torch.cat((torch.tensor([[1, 2] * 15]), draw_patterns(torch.tensor([0, 15, 15]), 8)))
    for part in (trial, held_out):
        others_P, truth = mean_losses([part], others_PL, 128), loss_of(part, truth_L)
        assert truth < others_P.min() - 0.1  # what was planted is there to be found
        assert loss_of(part, found_L) < truth + 0.1 * float(others_P.mean() - truth)
        assert loss_of(part, found_L) < others_P.min()


def test_pinned_layers_and_skips_are_respected():
    strong, bad = [1, 3, 4, 8], [2, 6]
    (trial, *_) = planted(10, strong, pinned=[0], skips=bad)
    count_CM = counts_of(10, Budget(5, 2, pinned=[0]))
    assert count_CM.tolist() == [[2, 3, 4]]
    (found_L,) = climb_to_fixed([trial], count_CM, 128)
    assert torch.equal(pattern_counts(found_L[None]), count_CM)
    truth_L = torch.ones(10).long().index_fill(0, torch.tensor(strong), BIG).index_fill(0, torch.tensor(bad), 0)[1:]
    assert torch.equal(found_L, truth_L)


def test_a_climb_never_ends_above_its_start_and_mostly_below_it():
    better = 0
    for seed in range(4):
        tokens_BT = random_tokens(8, 17, seed=seed)
        trials = [Trial(toy_backbone(seed=seed, layers=9), tokens_BT[:, :-1], tokens_BT[:, 1:])]
        count_CM = counts_of(9, Budget(4))
        (start_L,), (found_L,) = start_patterns(trials, count_CM, 128), climb_to_fixed(trials, count_CM, 128)
        assert loss_of(trials[0], found_L) <= loss_of(trials[0], start_L) + 1e-5
        better += loss_of(trials[0], found_L) < loss_of(trials[0], start_L) - 1e-3
    assert better >= 3


def test_a_round_takes_a_flip_a_layer_and_a_few_swaps_not_all(monkeypatch):
    asked = []
    monkeypatch.setattr(climbing, "mean_losses", lambda trials, pattern_PL, tokens: _note(asked, pattern_PL))
    climb([], torch.tensor([1, 2] * 15), 128)
    assert [*map(len, asked)] == [30, 1 + climbing.SWAPS + len(climbing.TOGETHER)] * climbing.ROUNDS
    for pattern_PL in asked[1::2]:  # all of one count, and no pattern twice
        assert (pattern_PL == BIG).sum(1).eq(15).all()
        assert len(pattern_PL.unique(dim=0)) == len(pattern_PL)


def _note(asked, pattern_PL):
    """Losses that fall whenever asked, so that a climb does not end by itself."""
    asked.append(pattern_PL)
    return -torch.arange(len(pattern_PL)) - 1000.0 * len(asked)


def test_all_counts_start_from_one_look_at_all_big(monkeypatch):
    (trial, *_) = planted(6, [0, 1, 2])
    looks = []
    monkeypatch.setattr(climbing, "mean_losses", lambda *given: looks.append(given) or mean_losses(*given))
    start_CL = start_patterns([trial], counts_of(6, Budget(0.4, 0.2)), 128)
    assert len(looks) == 1
    assert torch.equal(pattern_counts(start_CL), counts_of(6, Budget(0.4, 0.2)))


@pytest.mark.parametrize("budget", [Budget(6), Budget(0), Budget(0, 6)])
def test_where_there_is_nothing_to_choose_nothing_is_climbed(budget):
    (trial, *_) = planted(6, [0, 1, 2])
    found_CL = climb_to_fixed([trial], counts_of(6, budget), 128)
    assert torch.equal(pattern_counts(found_CL), counts_of(6, budget))


def test_a_long_climb_says_how_long_at_most_when_it_has_looked_at_all_big(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "duo")
    (trial, *_) = planted(12, [0, 1, 2])
    clock = itertools.count(step=20)  # the look takes twenty seconds
    monkeypatch.setattr(climbing, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(climbing, "ROUNDS", 3)
    climb_to_fixed([trial], counts_of(12, Budget(6)), 16)
    # a round takes twelve flips and twelve other patterns
    assert "climb  about 2 minutes for good fixed patterns, at most" in caplog.text
    caplog.clear()
    clock = itertools.count(step=1)
    climb_to_fixed([trial], counts_of(12, Budget(6)), 16)
    assert "minutes" not in caplog.text
