"""The output head: of a large vocabulary logits are made part by part, in passes, losses, gradients and searches."""

import pytest
import torch
from conftest import random_tokens, toy_backbone
from torch.utils._python_dispatch import TorchDispatchMode

from duo import Budget, Spec, Trial, replay
from duo.backbone import head
from duo.evaluation.timing import pace
from duo.inference import Sampling, generate
from duo.routing.loss import run_loss, token_loss
from duo.routing.meter import Meter
from duo.search import all_patterns
from routers.random import Random

VOCABULARY, ROWS = 700, 150


class Largest(TorchDispatchMode):
    """Notes the most rows over the vocabulary that any operator made."""

    def __init__(self):
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **keywords or {})
        if isinstance(made, torch.Tensor) and made.dim() and made.shape[-1] == VOCABULARY:
            self.rows = max(self.rows, made.numel() // VOCABULARY)
        return made


@pytest.fixture
def large(monkeypatch):
    """A backbone to which its vocabulary is large: logits of at most ROWS tokens are made at once."""
    monkeypatch.setattr(head, "WHOLE_BYTES", ROWS * VOCABULARY * 4)
    return toy_backbone(vocabulary=VOCABULARY)


def toy_trial(backbone, sequences=8, meter=None):
    tokens_BT = random_tokens(sequences, 41, VOCABULARY)
    labels_BT = tokens_BT[:, 1:].clone()
    labels_BT[0, 5:9] = -1
    return Trial(backbone, tokens_BT[:, :-1], labels_BT, meter=meter or Meter(enabled=False))


def mixed_route(trial):
    route_BTL = torch.randint(1, 3, (*trial.tokens_BT.shape, 3), generator=torch.Generator().manual_seed(1))
    return replay(route_BTL)


def test_losses_and_gradients_are_those_of_whole_logits(large):
    trial, gradients = toy_trial(large), []
    run = trial.run(mixed_route(trial))
    for loss_BT in (trial.loss(run), token_loss(run.logits_BTV, trial._labels_BT)):
        weighed = loss_BT * torch.linspace(0, 1, loss_BT.numel()).view_as(loss_BT)
        gradients.append(
            [loss_BT.detach(), *torch.autograd.grad(weighed.sum(), [*large.parameters()], retain_graph=True)]
        )
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-4)


def test_no_more_logits_are_held_than_are_made_at_once(large):
    trial = toy_trial(large)
    with Largest() as seen:
        loss = trial.loss(trial.run(mixed_route(trial)))
        loss.mean().backward()
    assert 0 < seen.rows <= ROWS
    with Largest() as seen, torch.no_grad():
        run = trial.run(mixed_route(trial))
    assert not seen.rows  # a pass whose losses nobody asks for ends before the head
    with Largest() as seen:
        assert run.logits_BTV.shape == (8, 40, VOCABULARY)
    assert seen.rows == 320


def test_of_a_prompt_that_is_continued_the_last_token_alone_gets_logits(large):
    prompts = random_tokens(8, 41, VOCABULARY).tolist()
    with Largest() as seen:
        generate(large, Random(Spec(3, 16, Budget(1))), prompts, 2, Sampling(temperature=0))
    assert seen.rows == 16  # the head's weights; logits are of 8


def test_a_small_vocabulary_has_its_logits_at_once_and_the_same_bits():
    trial = toy_trial(toy_backbone(vocabulary=VOCABULARY))
    run = trial.run(mixed_route(trial))
    assert run.head.made_BSV is run.logits_BTV
    assert torch.equal(trial.loss(run), token_loss(run.logits_BTV, trial._labels_BT))


def test_what_a_router_runs_is_charged_with_its_head_once(large):
    flops = []
    for backbone in (large, toy_backbone(vocabulary=VOCABULARY)):
        trial = toy_trial(backbone, meter=(meter := Meter()))
        with meter.counting():
            logits_BTV = trial.run(mixed_route(trial)).logits_BTV
        assert logits_BTV.shape[-1] == VOCABULARY
        flops.append(meter.costs.flops)
    assert flops[0] == flops[1]


def test_the_time_of_a_pass_holds_its_head(large):
    tokens_BT = random_tokens(8, 40, VOCABULARY)
    with Largest() as seen, torch.no_grad():
        found = pace(large, tokens_BT, None)
    assert 0 < seen.rows <= ROWS
    assert found.head > 0
    with torch.no_grad():
        assert 0 <= pace(toy_backbone(), random_tokens(8, 40), None).head < found.all_big.wall


def test_a_search_makes_logits_of_so_many_rows_at_once_that_a_product_is_worth_it(large, monkeypatch):
    monkeypatch.setattr("duo.search.values.CHUNK_BYTES", 1)
    trial, rows = toy_trial(large), []
    multiply = torch.mm

    def noted(x_RD, *rest, **more):
        rows.append(len(x_RD))
        return multiply(x_RD, *rest, **more)

    monkeypatch.setattr(torch, "mm", noted)
    found = trial.search(all_patterns(3), (), "same")
    assert max(rows) == head.LEAST_ROWS
    run = trial.run(replay(torch.full((8, 40, 3), 2)))
    scored = (trial._labels_BT >= 0).sum()
    assert torch.allclose(found.mean_loss_P[-1], run_loss(run, trial._labels_BT).sum() / scored, atol=1e-5)
