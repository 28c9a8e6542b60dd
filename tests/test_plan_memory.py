"""Planned bytes against what autograd keeps, and against what a process really takes."""

import sys

import pytest
import torch
from conftest import ROOT, random_tokens

from duo import Backbone, BackboneConfig, Budget, Spec, Trial
from duo.plan.memory import count_parameters, layer_bytes, numbers_of, training_memory
from duo.routing.meter import Meter
from routers.random import Random

SHAPES = {
    "llama": {},
    "opt": {"family": "opt"},
    "grouped": {"key_value_heads": 2},
    "wide heads": {"head_dim": 32},
    "normed heads": {"qk_norm": True},
    "untied": {"tied": False},
    "biased": {"attention_bias": "qkv"},
}
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def config_of(**changes):
    return BackboneConfig(
        **{"layers": 2, "width": 64, "heads": 4, "big": 256, "small": 32, "vocabulary": 512, "positions": 64} | changes
    )


def kept_bytes(config, tokens_BT):
    """Bytes that the backward pass of a step needs beside the parameters: what autograd packs, each storage once."""
    torch.manual_seed(0)
    backbone = Backbone(config)
    router = Random(Spec(config.layers, config.width, Budget(0.5)), p_big=0.5)
    trial = Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:], meter=Meter(enabled=False))
    own = {parameter.untyped_storage().data_ptr() for parameter in backbone.parameters()}
    kept = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held: no other gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        router.loss(trial)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_layer_keeps_what_autograd_packs(shape):
    tokens_BT = random_tokens(8, 65, vocabulary=512)
    two, four = (config_of(layers=layers, **SHAPES[shape]) for layers in (2, 4))
    packed = (kept_bytes(four, tokens_BT) - kept_bytes(two, tokens_BT)) / 2
    planned = layer_bytes(two, numbers_of("32-true"), p_big=0.5, p_small=0.5) * 8 * 64
    assert planned == pytest.approx(packed, rel=0.03)  # the coins do not fall exactly half and half


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_are_counted_without_any(shape):
    config = config_of(**SHAPES[shape])
    with torch.device("meta"):
        assert count_parameters(config) == Backbone(config).parameter_counts()


def test_the_papers_model_has_the_papers_parameters():
    config = BackboneConfig(layers=12, width=2560, heads=20, big=10240, small=640, vocabulary=32000)
    counts = count_parameters(config)
    assert (counts["big"], counts["small"], counts["attention"]) == (943_718_400, 58_982_400, 314_572_800)
    assert round(sum(counts.values()) / 1e6) == 1399


def test_every_knob_lowers_what_it_should():
    config = config_of()
    plain = training_memory(config, 4096, devices=4)
    sharded = training_memory(config, 4096, devices=4, sharded=True)
    assert sharded.weights == plain.weights / 4
    assert sharded.gradients == plain.gradients / 8  # DDP's buckets go too
    assert sharded.optimizer == plain.optimizer / 4
    assert plain.recomputing().peak() < plain.peak()
    half = training_memory(config, 4096, devices=4, precision="bf16-mixed")
    assert half.activations < plain.activations
    assert half.weights == plain.weights
    assert training_memory(config, 2048, devices=4, accumulate=2).activations < plain.activations
    assert training_memory(config, 4096, precision="bf16-true").optimizer == plain.optimizer / 2


@pytest.mark.long
@needs_linux
def test_a_process_takes_what_is_planned(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from planned import CASES, measure

    found = {name: measure(name) for name in CASES}
    wrong = {
        name: planned / measured for name, (planned, measured) in found.items() if abs(planned / measured - 1) > 0.1
    }
    assert not wrong
