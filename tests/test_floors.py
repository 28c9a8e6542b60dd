"""Floors rule candidates out, and never the best."""

import pytest
import torch
from conftest import random_tokens, toy_backbone

from duo.search import floors
from duo.search.floors import Floors
from duo.search.values import label_losses


def streams(candidates=40, batch=3, scale=1.0, **shape):
    """A toy, streams of its last layer that lie about as near to one another as routes do, and labels."""
    backbone = toy_backbone(**shape)
    centre_BSD = torch.randn(batch, 1, backbone.config.width)
    apart_JBSD = scale * torch.randn(candidates, batch, 1, backbone.config.width)
    return backbone, centre_BSD + apart_JBSD, random_tokens(batch, 1)


def found(backbone, x_JBSD, label_BS, parts=1, more_JBS=None):
    """Losses by floors, the streams in so many parts, and the lowest value of each token."""
    floor, losses = Floors(backbone, label_BS), []
    best_BS = torch.full(label_BS.shape, torch.inf)
    for at_J in torch.arange(len(x_JBSD)).chunk(parts):
        more = None if more_JBS is None else more_JBS[at_J]
        losses.append(floor.losses(x_JBSD[at_J], best_BS, more))
        best_BS = torch.minimum(best_BS, (losses[-1] if more is None else losses[-1] + more).amin(0))
    return torch.cat(losses), best_BS


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("scale", [0.0, 0.01, 0.3, 3.0])
@pytest.mark.parametrize("parts", [1, 4])
@torch.no_grad()
def test_the_best_candidate_is_never_ruled_out(family, scale, parts):
    backbone, x_JBSD, label_BS = streams(scale=scale, family=family)
    loss_JBS, best_BS = found(backbone, x_JBSD, label_BS, parts)
    exact_JBS = label_losses(backbone, x_JBSD, label_BS)
    assert torch.allclose(best_BS, exact_JBS.amin(0), atol=1e-5)
    computed_JBS = loss_JBS.isfinite()
    assert torch.allclose(loss_JBS[computed_JBS], exact_JBS[computed_JBS], atol=1e-5)


@torch.no_grad()
def test_the_best_candidate_of_a_price_is_never_ruled_out():
    backbone, x_JBSD, label_BS = streams()
    more_JBS = 0.2 * torch.rand(len(x_JBSD), 1, 1)
    _, best_BS = found(backbone, x_JBSD, label_BS, 3, more_JBS.expand(-1, *label_BS.shape))
    assert torch.allclose(best_BS, (label_losses(backbone, x_JBSD, label_BS) + more_JBS).amin(0), atol=1e-5)


@torch.no_grad()
def test_a_token_without_a_label_loses_nothing():
    backbone, x_JBSD, label_BS = streams()
    label_BS[1] = -1
    loss_JBS, _ = found(backbone, x_JBSD, label_BS)
    assert (loss_JBS[:, 1] == 0).all()
    assert (loss_JBS[:, 0] > 0).all()


@torch.no_grad()
def test_few_candidates_are_computed():
    backbone, x_JBSD, label_BS = streams(candidates=400, scale=0.1)
    loss_JBS, _ = found(backbone, x_JBSD, label_BS, parts=4)
    assert loss_JBS.isfinite().float().mean() < 0.1


@torch.no_grad()
def test_floors_that_are_too_high_are_caught(monkeypatch):
    tangent = Floors._tangent

    def too_high(self, x_ND):
        slope_ND, level_N, loss_N = tangent(self, x_ND)
        return slope_ND, level_N + 10, loss_N

    monkeypatch.setattr(Floors, "_tangent", too_high)
    backbone, x_JBSD, label_BS = streams()
    _, best_BS = found(backbone, x_JBSD, label_BS)
    assert not torch.allclose(best_BS, label_losses(backbone, x_JBSD, label_BS).amin(0), atol=1e-3)


@torch.no_grad()
def test_rounds_and_tangents_that_are_kept_change_no_result(monkeypatch):
    backbone, x_JBSD, label_BS = streams(scale=0.3)
    _, best_BS = found(backbone, x_JBSD, label_BS, parts=4)
    monkeypatch.setattr(floors, "ROUNDS", 1)
    monkeypatch.setattr(floors, "MOST", 1)
    _, other_BS = found(backbone, x_JBSD, label_BS, parts=4)
    assert torch.allclose(best_BS, other_BS, atol=1e-5)
