"""Gradients of weights and parameters against a dense computation, in which every token runs every module."""

import pytest
import torch
from conftest import random_tokens, toy_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from duo import straight_through
from duo.backbone.block import FFN
from duo.backbone.model import PADDING

MODULES_OF = {
    "straight through": straight_through,
    "soft": lambda logits: logits.softmax(-1),
    # skip or not is decided hard, small and big are mixed
    "mixed": lambda logits: torch.cat(
        (
            straight_through(logits[..., :2])[..., :1],
            straight_through(logits[..., :2])[..., 1:] * logits[..., 1:].softmax(-1),
        ),
        dim=-1,
    ),
    # the best two of three, weighed; the third is 0 and learns all the same
    "two of three": lambda logits: _best_two(logits.softmax(-1)),
}


def _best_two(soft):
    kept = soft.where(soft > soft.amin(-1, keepdim=True), 0)
    return kept.detach() + soft - soft.detach()


def dense(backbone, tokens_BT, weights):
    """Logits where all modules run on all tokens and are weighed afterwards; one sequence after the other, unpadded."""
    logits = []
    for row, tokens_T in enumerate(tokens_BT):
        first = int((tokens_T == PADDING).sum())
        x = backbone.embedding(tokens_T[None, first:])
        places = backbone.places(tokens_T[None, first:], 0, 0)
        for layer, block in enumerate(backbone.blocks):
            skip, small, big = weights[layer][row : row + 1, first:, :, None].unbind(2)
            normed = block.attention_norm(x)
            drawn = block.attention.attend(normed, *block.attention.keys_values(normed, places), places)
            h = x + (1 - skip) * drawn if block.block_scope else x + drawn
            normed = block.ffn_norm(h)
            x = h + small * block.ffn.small(normed) + big * block.ffn.big(normed)
        logits.append(backbone.logits(x)[0])
    return torch.cat(logits)


@pytest.mark.parametrize("scope", ["ffn", "block"])
@pytest.mark.parametrize("kind", MODULES_OF)
@pytest.mark.parametrize("padding", [0, 2])
def test_weights_and_parameters_get_the_gradients_of_the_dense_computation(scope, kind, padding):
    backbone, tokens_BT = toy_backbone(skip_scope=scope).double(), random_tokens(2, 5)
    tokens_BT[0, :padding] = PADDING
    generator = torch.Generator().manual_seed(3)
    logits_LBTM = torch.randn(3, 2, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = [MODULES_OF[kind](logits_BTM) for logits_BTM in logits_LBTM]
    learnt = [*weights, *backbone.parameters()]
    run = backbone(tokens_BT, lambda x_BSD, layer: weights[layer])
    ours_NV, theirs_NV = run.logits_BTV[tokens_BT != PADDING], dense(backbone, tokens_BT, weights)
    assert torch.allclose(ours_NV, theirs_NV)
    target_N = torch.arange(len(ours_NV))
    ours, theirs = (
        torch.autograd.grad(F.cross_entropy(logits_NV, target_N), learnt, retain_graph=True, materialize_grads=True)
        for logits_NV in (ours_NV, theirs_NV)
    )
    assert all(torch.allclose(one, other) for one, other in zip(ours, theirs, strict=True))
    real_BT = tokens_BT != PADDING
    assert all(gradient[real_BT][:, 1:].ne(0).all() for gradient in ours[:3])  # small and big, whatever was chosen
    if scope == "block":
        assert all(gradient[real_BT][:, 0].ne(0).all() for gradient in ours[:3])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["ffn", "block"]), st.booleans(), st.sampled_from([(0, 1, 2), (1, 2)]))
def test_a_pass_gives_the_same_whether_its_weights_learn_or_not(seed, scope, hard, allowed):
    backbone, tokens_BT = toy_backbone(skip_scope=scope), random_tokens(2, 6, seed=seed)
    logits_BTM = torch.full((2, 6, 3), -torch.inf)
    logits_BTM[..., allowed] = torch.randn(2, 6, len(allowed), generator=torch.Generator().manual_seed(seed))
    weights = straight_through if hard else torch.nn.Softmax(-1)
    plain = backbone(tokens_BT, lambda x_BSD, layer: weights(logits_BTM))
    learns = backbone(tokens_BT, lambda x_BSD, layer: weights(logits_BTM.requires_grad_()))
    assert learns.logits_BTV.requires_grad
    assert torch.equal(plain.logits_BTV, learns.logits_BTV)


@pytest.mark.parametrize("scope", ["ffn", "block"])
@pytest.mark.parametrize("kind", ["evaluation", "a route that does not learn", "padding"])
def test_a_module_of_weight_0_runs_for_weights_that_learn_alone(scope, kind, monkeypatch):
    backbone, tokens_BT, seen = toy_backbone(skip_scope=scope), random_tokens(2, 6), []
    if kind == "padding":
        tokens_BT = torch.cat((torch.full((2, 3), PADDING), tokens_BT), dim=1)
    logits_M = torch.tensor([0.0, 2.0, 1.0], requires_grad=kind != "a route that does not learn")
    forward = FFN.forward
    monkeypatch.setattr(FFN, "forward", lambda ffn, x_ND: (seen.append(len(x_ND)), forward(ffn, x_ND))[1])
    with torch.set_grad_enabled(kind != "evaluation"):
        backbone(tokens_BT, lambda x_BSD, layer: straight_through(logits_M).expand(*x_BSD.shape[:2], 3))
    assert seen == ([12, 0, 0, 12] if kind == "padding" else [12, 0]) * 3
