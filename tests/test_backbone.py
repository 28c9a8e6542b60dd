"""The backbone against Hugging Face's Llama and OPT, and against a slow computation one token at a time."""

import pytest
import torch
from conftest import random_route, random_tokens, toy_backbone, toy_config
from references import hugging_face, one_at_a_time

from duo import Backbone, BackboneConfig, Budget, Spec, Trial, one_hot, replay
from routers.random import Random

SHAPES = [
    {"family": "llama"},
    {"family": "llama", "key_value_heads": 2},
    {"family": "llama", "key_value_heads": 1, "tied": False},
    {"family": "opt"},
    {"family": "opt", "tied": False},
]
MODERN = {
    "key_value_heads": 2, "head_dim": 8, "attention_bias": "qkv", "ffn_bias": True, "qk_norm": True, "unrotated": [1],
    "rotary_scaling": "linear", "rotary_factor": 2.0,
}  # fmt: skip
"""What Qwen2, Qwen3 and SmolLM3 have beside Llama's block."""
SCOPES = [shape | {"skip_scope": scope} for shape in [*SHAPES[1:4], MODERN] for scope in ("ffn", "block")]


def all_big(x_BSD, layer):
    return torch.tensor([0.0, 0.0, 1.0]).expand(*x_BSD.shape[:2], 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_big_gives_the_logits_of_hugging_face(shape):
    backbone, tokens_BT = toy_backbone(**shape), random_tokens(2, 20)
    with torch.no_grad():
        ours, theirs = backbone(tokens_BT, all_big).logits_BTV, hugging_face(backbone)(tokens_BT).logits
    assert ours.std() > 0.1
    assert (ours - theirs).abs().max() < 1e-5


def test_the_papers_configuration_counts_exactly_its_parameters():
    with torch.device("meta"):
        backbone = Backbone(BackboneConfig(width=2560, heads=20, big=10240, small=640, vocabulary=32000))
    counts = backbone.parameter_counts()
    assert counts == {
        "big": 943_718_400, "small": 58_982_400, "attention": 314_572_800, "embeddings": 81_920_000, "norms": 64_000,
    }  # fmt: skip
    assert sum(counts.values()) == sum(parameter.numel() for parameter in backbone.parameters()) == 1_399_257_600


@pytest.mark.parametrize("shape", SCOPES)
def test_a_mixed_route_equals_a_slow_computation_token_by_token(shape):
    backbone, tokens_BT, route_BTL = toy_backbone(**shape), random_tokens(3, 9), random_route(3, 9, 3, (0, 1, 2))
    with torch.no_grad():
        run = backbone(tokens_BT, replay(route_BTL))
        slow = torch.stack([one_at_a_time(backbone, *pair) for pair in zip(tokens_BT, route_BTL, strict=True)])
    assert torch.allclose(run.logits_BTV, slow, atol=1e-5, rtol=1e-4)
    assert torch.equal(run.weight_BTLM, one_hot(route_BTL))


@pytest.mark.parametrize("shape", SCOPES)
@pytest.mark.parametrize("steps", [1, 3])
def test_cached_decoding_equals_the_whole_pass(shape, steps):
    backbone, tokens_BT, route_BTL = toy_backbone(**shape), random_tokens(2, 12), random_route(2, 12, 3, (0, 1, 2))
    with torch.no_grad():
        whole = backbone(tokens_BT, replay(route_BTL))
        run = backbone(tokens_BT[:, :6], replay(route_BTL[:, :6]))
        logits = [run.logits_BTV]
        for start in range(6, 12, steps):
            end = start + steps
            run = backbone(tokens_BT[:, start:end], replay(route_BTL[:, :end]), run, start)
            logits.append(run.logits_BTV)
    assert torch.allclose(torch.cat(logits, dim=1), whole.logits_BTV, atol=1e-5)
    assert torch.equal(run.tokens_BT, whole.tokens_BT)
    assert torch.equal(run.weight_BTLM, whole.weight_BTLM)
    for ours, theirs in zip(run.keys_values, whole.keys_values, strict=True):
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("shape", SCOPES)
def test_left_padding_changes_no_real_token_and_enters_no_module(shape):
    backbone, tokens_BT, route_BTL = toy_backbone(**shape), random_tokens(2, 8), random_route(2, 8, 3, (0, 1, 2))
    padded_BT = torch.full((2, 13), -1)
    padded_BT[0, 5:], padded_BT[1, 2:10] = tokens_BT[0], tokens_BT[1]
    padded_BT[1, 10:] = 7  # the second sequence goes on
    wide_BTL = torch.full((2, 13, 3), 2)
    wide_BTL[0, 5:], wide_BTL[1, 2:10] = route_BTL[0], route_BTL[1]
    with torch.no_grad():
        plain, padded = backbone(tokens_BT, replay(route_BTL)), backbone(padded_BT, replay(wide_BTL))
        decoded = backbone(padded_BT[:, 9:], replay(wide_BTL), backbone(padded_BT[:, :9], replay(wide_BTL[:, :9])), 9)
    assert torch.allclose(padded.logits_BTV[0, 5:], plain.logits_BTV[0], atol=1e-5)
    assert torch.allclose(padded.logits_BTV[1, 2:10], plain.logits_BTV[1], atol=1e-5)
    assert padded.weight_BTLM[0, :5].abs().sum() == padded.weight_BTLM[1, :2].abs().sum() == 0
    assert torch.allclose(decoded.logits_BTV, padded.logits_BTV[:, 9:], atol=1e-5)
    assert padded.logits_BTV.isfinite().all()


@pytest.mark.parametrize("shape", SCOPES)
def test_a_context_from_the_start_scores_one_changed_token_among_the_others_choices(shape):
    """Position t of a pass with start=0 equals a whole pass in which t alone follows the new route."""
    backbone, tokens_BT = toy_backbone(**shape), random_tokens(2, 7)
    old_BTL, new_BTL = random_route(2, 7, 3, (0, 1, 2), seed=1), random_route(2, 7, 3, (0, 1, 2), seed=2)
    with torch.no_grad():
        context = backbone(tokens_BT, replay(old_BTL))
        changed = backbone(tokens_BT, replay(new_BTL), context)
        for position in range(7):
            mixed_BTL = old_BTL.clone()
            mixed_BTL[:, position] = new_BTL[:, position]
            one = backbone(tokens_BT, replay(mixed_BTL))
            assert torch.allclose(changed.logits_BTV[:, position], one.logits_BTV[:, position], atol=1e-5)
        again = backbone(tokens_BT[:, 3:], replay(new_BTL), context, 3)  # a start inside the context
    assert torch.allclose(again.logits_BTV, changed.logits_BTV[:, 3:], atol=1e-5)
    assert torch.equal(again.weight_BTLM, torch.cat((context.weight_BTLM[:, :3], changed.weight_BTLM[:, 3:]), dim=1))


def test_positions_past_the_context_attend_to_this_passs_own():
    backbone, tokens_BT, route_BTL = toy_backbone(), random_tokens(1, 8), random_route(1, 8, 3)
    with torch.no_grad():
        context = backbone(tokens_BT[:, :4], replay(route_BTL[:, :4]))
        longer = backbone(tokens_BT[:, 2:], replay(route_BTL), context, 2)
        whole = backbone(tokens_BT, replay(route_BTL))
    assert torch.allclose(longer.logits_BTV, whole.logits_BTV[:, 2:], atol=1e-5)


@pytest.mark.parametrize("module", [0, 1, 2])
def test_a_module_without_tokens_gets_zero_gradients_not_none(module):
    for scope in ("ffn", "block"):
        backbone = toy_backbone(skip_scope=scope)
        backbone(random_tokens(2, 5), replay(torch.full((2, 5, 3), module))).logits_BTV.sum().backward()
        assert all(parameter.grad is not None for parameter in backbone.parameters())
        unused = [part for kind, part in (("small", 1), ("big", 2)) if part != module for part in (kind,)]
        for name, parameter in backbone.named_parameters():
            if any(f"ffn.{kind}" in name for kind in unused):
                assert parameter.grad.abs().sum() == 0


def test_a_soft_gate_mixes_both_modules_and_learns():
    backbone, tokens_BT = toy_backbone(), random_tokens(2, 5)
    logits_M = torch.zeros(3, requires_grad=True)
    run = backbone(tokens_BT, lambda x_BSD, layer: logits_M.softmax(0).expand(*x_BSD.shape[:2], 3))
    run.logits_BTV.pow(2).sum().backward()
    assert logits_M.grad.abs().min() > 0
    block, normed = backbone.blocks[0], torch.randn(1, 4, 16)
    weight = torch.tensor([0.2, 0.3, 0.5]).expand(1, 4, 3)
    mixed = 0.3 * block.ffn.small(normed[0]) + 0.5 * block.ffn.big(normed[0])
    assert torch.allclose(block.ffn(normed, weight)[0], mixed, atol=1e-5)


def test_sequences_of_a_batch_do_not_meet():
    backbone, tokens_BT, route_BTL = toy_backbone(), random_tokens(4, 6), random_route(4, 6, 3)
    with torch.no_grad():
        whole = backbone(tokens_BT, replay(route_BTL)).logits_BTV
        alone = backbone(tokens_BT[2:3], replay(route_BTL[2:3])).logits_BTV
    assert torch.allclose(whole[2:3], alone, atol=1e-5)


def test_bfloat16_runs_in_both_scopes():
    for scope in ("ffn", "block"):
        backbone = toy_backbone(skip_scope=scope).bfloat16()
        run = backbone(random_tokens(2, 5), replay(random_route(2, 5, 3, (0, 1, 2))))
        assert run.logits_BTV.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (lambda x_BSD, layer: torch.ones(*x_BSD.shape[:2], 2), r"shape \(2, 5, 2\)"),
        (lambda x_BSD, layer: torch.ones(3), r"shape \(3,\)"),
        (lambda x_BSD, layer: None, "a NoneType"),
    ],
)
def test_a_gate_of_the_wrong_shape_is_named(gate, said):
    with pytest.raises(ValueError, match=rf"{said} at layer 0.*\(2, 5, 3\)"):
        toy_backbone()(random_tokens(2, 5), gate)


def test_impossible_contexts_and_padding_are_refused():
    backbone, tokens_BT = toy_backbone(), random_tokens(2, 6)
    context = backbone(tokens_BT[:, :4], all_big)
    with pytest.raises(ValueError, match="gap"):
        backbone(tokens_BT, all_big, context, 5)
    with pytest.raises(ValueError, match="gap"):
        backbone(tokens_BT, all_big, start=1)
    other_BT = tokens_BT.clone()
    other_BT[1, 3] += 1
    with pytest.raises(ValueError, match="sequence 1 differs at position 3"):
        backbone(other_BT[:, 2:], all_big, context, 2)
    with pytest.raises(ValueError, match="2 sequences"):
        backbone(tokens_BT[:1], all_big, context, 0)
    with pytest.raises(ValueError, match="on the left"):
        backbone(torch.tensor([[3, -1, 4]]), all_big)
    with pytest.raises(ValueError, match="positions=64"):
        toy_backbone(family="opt")(random_tokens(1, 65), all_big)


@pytest.mark.parametrize(
    "change",
    [
        {"layers": 0},
        {"width": 0},
        {"family": "gpt"},
        {"skip_scope": "head"},
        {"heads": 3},
        {"key_value_heads": 3},
        {"big": 0},
    ],
)
def test_impossible_configs_name_the_field(change):
    with pytest.raises(ValueError, match=rf"backbone\.{next(iter(change))}"):
        toy_config(**change)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", SCOPES)
def test_a_gpu_computes_what_the_cpu_does(shape):
    backbone, tokens_BT, route_BTL = toy_backbone(**shape), random_tokens(2, 12), random_route(2, 12, 3, (0, 1, 2))
    with torch.no_grad():
        cpu = backbone(tokens_BT, replay(route_BTL)).logits_BTV
        gpu = backbone.cuda()(tokens_BT.cuda(), replay(route_BTL.cuda())).logits_BTV.cpu()
    assert torch.allclose(cpu, gpu, atol=1e-4)


def test_a_random_router_trains_every_parameter():
    backbone, tokens_BT = toy_backbone().train(), random_tokens(4, 8)
    trial = Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:])
    Random(Spec(3, 16, Budget(1)), p_big=0.5).loss(trial).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in backbone.parameters())
