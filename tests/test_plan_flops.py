"""Planned FLOPs of training steps against torch's own counter, forward and backward."""

import pytest
import torch
from conftest import random_tokens
from test_plan_memory import config_of
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from duo import Backbone, Budget, Spec, Trial
from duo.backbone import head
from duo.plan.training import stage1_flops
from duo.routing.meter import Meter
from duo.training.config import Stage1Part
from routers.random import Random


def counted(config, stage, tokens_BT):
    """torch's count of a step, a token, without the masked half of attention, which it counts too."""
    torch.manual_seed(0)
    backbone = Backbone(config)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(stage.learn == "all" or ("ffn.small." in name) == (stage.learn == "small"))
    router = Random(Spec(config.layers, config.width, Budget(0.5)), p_big=stage.p_big, p_skip=stage.p_skip)
    trial = Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:], meter=Meter(enabled=False))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        router.loss(trial).backward()
    length = tokens_BT.shape[1] - 1
    masked = 3 * config.layers * 4 * config.attention_width * (length - (length + 1) / 2)
    return counter.get_total_flops() / (tokens_BT.shape[0] * length) - masked


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("chances", [{"p_big": 0.5}, {"p_big": 1.0}, {"p_big": 0.3, "p_skip": 0.3}])
def test_a_step_of_stage_1_costs_what_torch_counts(family, chances):
    config, tokens_BT = config_of(family=family), random_tokens(16, 65, vocabulary=512)
    stage = Stage1Part(**chances)
    assert stage1_flops(config, stage, 64, 16 * 64) == pytest.approx(counted(config, stage, tokens_BT), rel=0.01)


@pytest.mark.parametrize("learn", ["big", "small"])
def test_frozen_weights_spare_their_gradients(learn):
    config, tokens_BT, stage = config_of(), random_tokens(16, 65, vocabulary=512), Stage1Part(learn=learn)
    # below the first layer that learns there is no backward pass: a few percent of a model of many layers
    deep = config_of(layers=8)
    assert stage1_flops(config, stage, 64, 1024) < stage1_flops(config, Stage1Part(), 64, 1024)
    assert stage1_flops(deep, stage, 64, 1024) == pytest.approx(counted(deep, stage, tokens_BT), rel=0.1)


def test_large_logits_are_made_once_more(monkeypatch):
    config, tokens_BT, stage = config_of(vocabulary=2048), random_tokens(16, 65, vocabulary=512), Stage1Part()
    monkeypatch.setattr(head, "WHOLE_BYTES", 1 << 20)
    monkeypatch.setattr("duo.plan.training.WHOLE_BYTES", 1 << 20)
    assert stage1_flops(config, stage, 64, 16 * 64) == pytest.approx(counted(config, stage, tokens_BT), rel=0.01)
