"""Knobs of training: what each may change of losses, gradients, weights and routes, on the sizes of `tiny`."""

import functools

import lightning as L
import pytest
import torch
from conftest import random_tokens
from lightning.pytorch.plugins.precision import MixedPrecision
from test_training import NotANumberAt, cut_off, loss_curve, weights

from duo import Backbone, BackboneConfig, Budget, Spec, Trial
from duo.backbone.dense import PLAIN, Dense
from duo.data import DataConfig, TextData
from duo.routing.meter import Meter
from duo.training import DuoModule, TrainingConfig, fit, trainer
from duo.training.options import check_device
from routers.random import Random
from routers.softmax_budget import SoftmaxBudget

TINY = {"layers": 4, "width": 32, "heads": 2, "big": 64, "small": 8, "vocabulary": 512}
SPEC = Spec(4, 32, Budget(2))
CPU = {"accelerator": "cpu"}


@pytest.fixture(scope="module")
def data(files, tmp_path_factory):
    config = DataConfig(
        source="files", train=[f"{files}/train*.txt"], holdouts={"held": [f"{files}/held*.txt"]}, tokens=64,
        batch_size=16,
    )  # fmt: skip
    return TextData(config, 512, tmp_path_factory.mktemp("cache"))


def module_of(router=None, **changes):
    torch.manual_seed(0)
    given = {"steps": 8, "learning_rate": 1e-2, "warmup_steps": 2, "checkpoint_every": 3, "log_every": 1} | changes
    return DuoModule(Backbone(BackboneConfig(**TINY)), router or Random(SPEC, p_big=0.5), TrainingConfig(**given))


def curve(data, folder, **options):
    """Weights and losses of a training."""
    module = module_of()
    fit(module, data, folder, "test", CPU | options)
    assert module.backbone.dense is PLAIN
    return weights(module), [loss for _, loss in loss_curve(folder)]


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    return curve(data, tmp_path_factory.mktemp("plain"))


class Noting:
    """A gate that keeps what it answers."""

    def __init__(self, gate):
        self.gate, self.said = gate, []

    def __call__(self, x_BSD, layer):
        self.said.append(self.gate(x_BSD, layer))
        return self.said[-1]


def step_of(dense, soft=False, scope="ffn", family="llama", frozen=False, padding=0):
    """Loss, gradients and routes of one step; the gate is asked once a layer."""
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(skip_scope=scope, family=family, **TINY)).requires_grad_(not frozen)
    spec = Spec(4, 32, Budget(2, skip=1)) if scope == "block" else SPEC
    router = SoftmaxBudget(spec) if soft else Random(spec, p_big=0.5, p_skip=0.25 if scope == "block" else 0)
    backbone.dense = dense
    tokens_BT = random_tokens(16, 65, vocabulary=512)
    tokens_BT[0, :padding] = -1
    trial = Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:], meter=Meter(enabled=False))
    gate = Noting(router.route(trial))
    run = trial.run(gate)
    loss = trial.loss(run).mean()
    loss.backward()
    assert len(gate.said) == 4
    learning = [part for part in (*backbone.parameters(), *router.parameters()) if part.grad is not None]
    return loss.detach(), torch.cat([part.grad.flatten() for part in learning]), torch.stack(gate.said).detach()


CASES = [
    {}, {"scope": "block"}, {"soft": True, "frozen": True}, {"soft": True, "scope": "block"}, {"family": "opt"},
    {"padding": 5},
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_checkpointed_step_is_the_same_bit_for_bit_and_asks_the_gate_once(case):
    for found, expected in zip(step_of(Dense(checkpointed=True), **case), step_of(PLAIN, **case), strict=True):
        assert torch.equal(found, expected)


def held_bytes(dense):
    """Bytes that the graph of a step holds: what autograd packs, each storage once."""
    backbone, held = module_of().backbone, {}
    backbone.dense = dense
    tokens_BT = random_tokens(16, 65, vocabulary=512)
    trial = Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:], meter=Meter(enabled=False))
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: held.setdefault(tensor.untyped_storage().data_ptr(), tensor), lambda tensor: tensor
    ):
        Random(SPEC, p_big=0.5).loss(trial)
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def test_a_checkpointed_step_holds_nothing_from_within_a_layer():
    # the head's logits and their logarithms, the weights of norm and head, and less than one layer's stream
    logits, stream = 4 * 16 * 64 * 512, 4 * 16 * 64 * 32
    assert held_bytes(PLAIN) > 2 * logits + 4 * 10 * stream
    assert held_bytes(Dense(checkpointed=True)) < 2 * logits + 4 * 512 * 32 + 4 * stream


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"activation_checkpointing": True}, 0),
        ({"accumulate_grad_batches": 4}, 1e-4),
        ({"precision": "bf16-mixed"}, 0.02),
        ({"precision": "bf16-mixed", "activation_checkpointing": True, "accumulate_grad_batches": 2}, 0.02),
    ],
    ids=str,
)
def test_a_knob_leaves_the_losses(data, tmp_path, plain, options, tolerance):
    _, losses = curve(data, tmp_path, **options)
    assert len(losses) == 8
    assert losses == pytest.approx(plain[1], abs=tolerance)


@pytest.fixture
def in_half(monkeypatch):
    """Trains as on a GPU under 16-mixed, with losses scaled from so much on."""
    whole = L.Trainer

    def begin(scale):
        def build(plugins, **given):
            half = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
            return whole(plugins=[*plugins, half], **given)

        monkeypatch.setattr(L, "Trainer", build)
        monkeypatch.setattr(trainer, "check_device", lambda options, device: None)

    return begin


@pytest.fixture
def norms(monkeypatch):
    """The gradient's norm at each step, as clipping finds it."""
    found, clip = [], torch.nn.utils.clip_grad_norm_

    @functools.wraps(clip)
    def noting(*given):
        found.append(float(clip(*given)))
        return torch.tensor(found[-1])

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", noting)
    return found


def test_scaled_gradients_are_clipped_at_their_own_norm(data, tmp_path, plain, in_half, norms):
    curve(data, tmp_path / "plain")
    in_half(2.0**10)
    _, losses = curve(data, tmp_path / "half")
    assert norms[8:] == pytest.approx(norms[:8], rel=0.02)
    assert losses == pytest.approx(plain[1], abs=0.02)


def test_too_large_a_scale_leaves_steps_out_until_gradients_are_numbers(data, tmp_path, in_half):
    in_half(2.0**24)
    module = module_of(steps=16)
    before = weights(module)
    fit(module, data, tmp_path, "test", CPU)
    assert weights(module).isfinite().all()
    assert not torch.equal(weights(module), before)


def test_gradients_that_are_no_numbers_at_any_scale_stop_a_training(data, tmp_path, in_half):
    in_half(4.0)
    module = module_of(router=NotANumberAt(SPEC, 0.25, gradient=True))
    with pytest.raises(FloatingPointError, match="the gradient's norm is nan at step 4 of 8"):  # 2: scale 4, 3: scale 2
        fit(module, data, tmp_path, "test", CPU)


def test_a_training_in_half_precision_that_was_cut_off_ends_with_the_same_weights(data, tmp_path, in_half, monkeypatch):
    in_half(2.0**24)  # falls at every step, and must not begin anew
    whole, again = module_of(), module_of()
    fit(whole, data, tmp_path / "whole", "test", CPU)
    cut_off(module_of(), data, tmp_path / "cut", 5, CPU, monkeypatch)
    fit(again, data, tmp_path / "cut", "test", CPU)
    assert torch.equal(weights(again), weights(whole))


def test_float16_is_refused_on_a_cpu_with_the_way_out():
    with pytest.raises(ValueError, match="trainer.precision=16-mixed needs a GPU.*use bf16-mixed"):
        check_device({"precision": "16-mixed"}, torch.device("cpu"))
    check_device({"precision": "16-mixed"}, torch.device("cuda"))
    check_device({"precision": "bf16-mixed"}, torch.device("cpu"))
