"""Every way to run a layer's FFNs against the rule written out."""

import pytest
import torch
from conftest import toy_config
from torch.nn import functional as F

from duo.backbone import routed
from duo.backbone.block import FFN, DuoFFN

WIDTH = 16
WAYS = {
    "grouped": routed.run_grouped,
    "chosen": lambda ffns, x_ND, weight_NO: routed.run_chosen(
        ffns, x_ND, weight_NO, weight_NO != 0, int((weight_NO[:, 0] != 0).sum())
    ),
    "mix": routed.mix,
}


def ffns_of(dtype=torch.float32, family="llama"):
    torch.manual_seed(0)
    ffn = DuoFFN(toy_config(family=family, big=64, small=16)).to(dtype)
    return ffn.small, ffn.big


def weights(kind, tokens):
    generator = torch.Generator().manual_seed(1)
    if kind == "soft":
        return torch.rand(tokens, 3, generator=generator).softmax(-1)[:, 1:]
    modules = {"small": [1], "big": [2], "skip": [0], "hard": [1, 2], "hard with skips": [0, 1, 2]}
    choice_N = torch.randint(len(modules.get(kind, [0, 1, 2])), (tokens,), generator=generator)
    weight_NO = F.one_hot(torch.tensor(modules.get(kind, [0, 1, 2]))[choice_N], 3)[:, 1:].float()
    return weight_NO if kind in modules else weight_NO * 0.7 + (torch.arange(tokens) % 3 == 0)[:, None] * 0.2


def rule(ffns, x_ND, weight_NO):
    """The simple one: every token through both, then weighed."""
    small, big = ffns
    return small(x_ND) * weight_NO[:, :1] + big(x_ND) * weight_NO[:, 1:]


def found(way, ffns, x_ND, weight_NO):
    """Outputs and gradients of the tokens and of all parameters."""
    x_ND, parameters = x_ND.clone().requires_grad_(), [part for ffn in ffns for part in ffn.parameters()]
    y_ND = way(ffns, x_ND, weight_NO)
    return y_ND.detach(), *torch.autograd.grad(y_ND.square().sum(), [x_ND, *parameters])


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["soft", "small", "big", "skip", "hard", "hard with skips", "some of both"])
@pytest.mark.parametrize("tokens", [1, 5, 80])
def test_every_way_gives_the_rules_outputs_and_gradients(kind, dtype, tokens, family):
    ffns, x_ND, weight_NO = (
        ffns_of(dtype, family),
        torch.randn(tokens, WIDTH).to(dtype),
        weights(kind, tokens).to(dtype),
    )
    expected = found(rule, ffns, x_ND, weight_NO)
    near = {torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    for name, way in WAYS.items():
        for ours, theirs in zip(found(way, ffns, x_ND, weight_NO), expected, strict=True):
            assert torch.allclose(ours, theirs, atol=near * max(1, theirs.abs().max().item())), name
    with torch.no_grad():
        for way in (routed.mix, routed.run_few):
            assert torch.allclose(way(ffns, x_ND, weight_NO), expected[0], atol=near)


@pytest.mark.parametrize("kind", ["soft", "small", "big", "hard", "hard with skips"])
def test_ways_that_multiply_the_same_rows_give_the_same_bits(kind):
    ffns, x_ND, weight_NO = ffns_of(), torch.randn(80, WIDTH), weights(kind, 80)
    results = (found(WAYS[way], ffns, x_ND, weight_NO) for way in ("mix", "chosen"))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("tokens", [1, 5, 80])
def test_without_gradients_a_module_without_tokens_is_not_called_for_few(tokens, monkeypatch):
    seen, forward = [], FFN.forward
    monkeypatch.setattr(FFN, "forward", lambda ffn, x, *more: (seen.append(len(x)), forward(ffn, x, *more))[1])
    with torch.no_grad():
        routed.mix(ffns_of(), torch.randn(tokens, WIDTH), weights("big", tokens))
    assert seen == [tokens]


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize(("width", "small"), [(16, 4), (16, 12), (24, 20), (12, 16)])
def test_a_grouped_product_takes_modules_of_any_width(width, small, family):
    torch.manual_seed(0)
    ffn = DuoFFN(toy_config(family=family, width=width, heads=1, big=64, small=small)).bfloat16()
    x_ND, weight_NO = torch.randn(40, width).bfloat16(), weights("hard with skips", 40).bfloat16()
    ours, expected = (found(way, (ffn.small, ffn.big), x_ND, weight_NO) for way in (routed.run_grouped, rule))
    for one, other in zip(ours, expected, strict=True):
        assert torch.allclose(one, other, atol=0.05 * max(1, other.abs().max().item()))


def test_rows_that_a_grouped_product_leaves_undefined_reach_nothing(monkeypatch):
    product = torch._grouped_mm

    def spoiled(x, weight, offs):
        return product(x, weight, offs=offs).where(torch.arange(len(x))[:, None] < offs, torch.nan)

    expected = found(rule, ffns_of(), torch.ones(6, WIDTH), weights("hard", 6))
    monkeypatch.setattr(torch, "_grouped_mm", spoiled)
    ours = found(routed.run_grouped, ffns_of(), torch.ones(6, WIDTH), weights("hard", 6))
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(ours, expected, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("tokens", [1, 512])
@pytest.mark.parametrize("kind", ["soft", "big", "hard"])
def test_on_a_gpu_nothing_waits_for_the_device(kind, tokens):
    x_ND, weight_NO = torch.randn(tokens, WIDTH).bfloat16(), weights(kind, tokens).bfloat16()
    expected_ND = rule(ffns_of(torch.bfloat16), x_ND, weight_NO)
    ffns = tuple(ffn.cuda() for ffn in ffns_of(torch.bfloat16))
    x_ND, weight_NO = x_ND.cuda(), weight_NO.cuda()
    if not routed.can_group(x_ND):
        pytest.skip("no grouped products")
    torch.cuda.set_sync_debug_mode("error")
    try:
        y_ND = routed.mix(ffns, x_ND, weight_NO)
        y_ND.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.allclose(y_ND.cpu(), expected_ND, atol=0.05)
