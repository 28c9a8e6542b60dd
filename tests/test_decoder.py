"""Reading step by step: memory that is allocated once, steps behind one another, gradients behind what was read."""

import pytest
import torch
from conftest import random_route, random_tokens, toy_backbone
from test_generate import SHAPES, THREE, toy_router, whole_pass

from duo import Trial, replay
from duo.backbone.room import Room
from duo.inference import Decoder
from duo.routing.router import route_and_run


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("padding", [0, 3])
def test_memory_that_is_allocated_once_holds_what_copies_hold_and_stays_where_it_is(shape, padding):
    backbone, router = toy_backbone(**shape), toy_router("random", THREE)
    tokens_BT = random_tokens(2, 12)
    tokens_BT[0, :padding] = -1
    decoder, copied, places = Decoder(backbone, router, torch.arange(2), 12), None, set()
    for start, stop in [(0, 5), *((at, at + 1) for at in range(5, 12))]:
        run = decoder.read(tokens_BT[:, start:stop])
        trial = Trial(backbone, tokens_BT[:, :stop], None, torch.arange(2))
        with torch.no_grad():
            copied = route_and_run(backbone, router, trial, copied, start)
        for ours, theirs in zip(run.keys_values, copied.keys_values, strict=True):
            assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
        assert torch.equal(run.logits_BTV, copied.logits_BTV)
        assert torch.equal(run.weight_BTLM, copied.weight_BTLM)
        places.add(tuple(part.data_ptr() for pair in run.keys_values for part in pair))
        assert all(isinstance(pair, Room) for pair in run.keys_values)
    assert len(places) == 1


def test_more_than_there_is_room_for_comes_out_all_the_same():
    backbone, router, tokens_BT = toy_backbone(), toy_router("random", THREE), random_tokens(1, 9)
    decoder, logits = Decoder(backbone, router, torch.arange(1), 6), []
    for tokens_BS in tokens_BT.split([4, 1, 2, 1, 1], dim=1):
        logits.append(decoder.read(tokens_BS).logits_BTV)
    whole = whole_pass(backbone, router, tokens_BT[0].tolist())
    assert torch.allclose(torch.cat(logits, dim=1), whole.logits_BTV, atol=1e-5)


def test_memory_that_is_full_moves_into_twice_as_much_and_few_steps_move_it():
    decoder, places = Decoder(toy_backbone(), toy_router("random", THREE), torch.arange(2), 4), []
    for tokens_BS in random_tokens(2, 40).tensor_split([*range(4, 40)], dim=1):
        pairs = decoder.read(tokens_BS).keys_values
        assert all(isinstance(pair, Room) for pair in pairs)
        places.append(pairs[1][0].data_ptr())
    assert len({*places}) == 1 + 4  # 4, then 9, 19, 39, 79 positions


def test_gradients_go_through_passes_behind_what_a_decoder_has_read():
    backbone, tokens_BT, gradients = toy_backbone(), random_tokens(2, 9), []
    decoder = Decoder(backbone, toy_router("random"), torch.arange(2), 9)
    read = decoder.read(tokens_BT[:, :4])
    with torch.no_grad():
        copied = backbone(tokens_BT[:, :4], replay(read.weight_BTLM.argmax(-1)))
    for run in (read, copied):
        middle = backbone(tokens_BT[:, 4:7], replay(random_route(2, 3, 3)), run, 4)
        last = backbone(tokens_BT[:, 7:], replay(random_route(2, 2, 3)), middle, 7)
        loss = middle.logits_BTV.square().sum() + last.logits_BTV.square().sum()
        gradients.append(torch.autograd.grad(loss, [*backbone.parameters()]))
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    assert torch.equal(decoder.read(tokens_BT[:, 4:]).tokens_BT, tokens_BT)


def test_two_continuations_of_one_run_leave_each_other_alone():
    backbone, router, tokens_BT = toy_backbone(), toy_router("random", THREE), random_tokens(1, 9)
    other_BT = (tokens_BT + 1) % 64
    decoder = Decoder(backbone, router, torch.arange(1), 9)
    middle = decoder.read(tokens_BT[:, :4])
    first = decoder.read(tokens_BT[:, 4:7])
    for before, tokens_BS in ((middle, other_BT[:, 4:]), (first, tokens_BT[:, 7:]), (middle, tokens_BT[:, 4:])):
        decoder.run = before
        run = decoder.read(tokens_BS)
        whole = whole_pass(backbone, router, run.tokens_BT[0].tolist())
        for ours, theirs in zip(run.keys_values, whole.keys_values, strict=True):
            assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(ours, theirs, strict=True))
