"""Gradients of weights and parameters against a dense computation, in which every token runs every module."""

import pytest
import torch
from conftest import random_tokens, toy_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from duo import Budget, Router, Spec, Trial, one_hot, replay, straight_through
from duo.backbone.block import FFN
from duo.backbone.model import PADDING
from duo.testing import SKIP_SPEC, SPEC
from duo.testing.learning import every_allowed_module_learns

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
    calls = {"padding": [12, 0, 0, 12], "a route that does not learn": [12, 0], "evaluation": [12]}
    assert seen == calls[kind] * 3


class Gumbel(Router):
    """Hard routes in training too: the highest logit under Gumbel noise, its gradient straight through."""

    def __init__(self, spec, alpha=10.0):
        super().__init__(spec)
        self.alpha = alpha
        self.heads = torch.nn.ModuleList(torch.nn.Linear(spec.width, 3) for _ in range(spec.layers))
        self.register_buffer("share_M", torch.tensor(spec.budget) / spec.layers)

    def logits(self, x_BSD, layer):
        return self.heads[layer](x_BSD).masked_fill(self.share_M == 0, -torch.inf)

    def route(self, trial):
        if not self.training:
            return lambda x_BSD, layer: one_hot(self.logits(x_BSD, layer).argmax(-1))
        uniform_BTLM = torch.stack([trial.uniform(draw) for draw in range(3)], dim=-1)
        noise_BTLM = -(-(uniform_BTLM + 1e-9).log()).log()
        return lambda x_BSD, layer: straight_through(self.logits(x_BSD, layer) + noise_BTLM[:, :, layer])

    def loss(self, trial):
        run = trial.run(self.route(trial))
        share_BM = run.weight_BTLM.mean(dim=(1, 2))
        return trial.loss(run).mean() + self.alpha * (share_BM - self.share_M).square().sum(1).mean()


@pytest.mark.parametrize("spec", [SPEC, SKIP_SPEC])
def test_what_a_hard_gate_did_not_choose_learns_too(spec):
    every_allowed_module_learns(lambda spec: Gumbel(spec, alpha=0), spec)


def lead_over_fixed(seed, steps=100):
    """What a Gumbel router loses less than the best fixed pattern, where every token's best route is in its embedding.

    Labels are what the backbone says where tokens of one kind spend big on the first layer, the others on the last.
    """
    backbone = toy_backbone(seed).requires_grad_(False)
    pattern_PL = torch.tensor([[2, 1, 1], [1, 2, 1], [1, 1, 2]])
    route_VL = pattern_PL[2 * (backbone.embedding.weight[:, 0] > 0)]

    def trial_of(step):
        tokens_BT = random_tokens(256, 1, seed=step)
        with torch.no_grad():
            labels_BT = backbone(tokens_BT, replay(route_VL[tokens_BT])).logits_BTV.argmax(-1)
        return Trial(backbone, tokens_BT, labels_BT, purpose="train", step=step, progress=step / steps)

    torch.manual_seed(0)
    router = Gumbel(Spec(3, 16, Budget(1)))
    optimizer = torch.optim.Adam(router.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        router.loss(trial_of(step)).backward()
        optimizer.step()
    trial = trial_of(steps)
    with torch.no_grad():
        gates = [router.eval().route(trial), *(replay(pattern_L.expand(256, 1, 3)) for pattern_L in pattern_PL)]
        ours, *fixed = [float(trial.loss(trial.run(gate)).mean()) for gate in gates]
    return min(fixed) - ours


@pytest.mark.long
def test_a_straight_through_router_learns_more_than_the_best_fixed_pattern():
    leads = [lead_over_fixed(seed) for seed in range(3)]
    print("nats below the best fixed pattern:", [round(lead, 3) for lead in leads])
    assert sum(leads) / len(leads) > 0.1
