import errno
import re
import warnings
from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import toy_backbone
from hypothesis import given
from hypothesis import strategies as st

from duo import Backbone, Budget, Router, Spec
from duo.data import DataConfig, TextData
from duo.progress import watching
from duo.storage.weights import save_weights
from duo.training import DuoModule, TrainingConfig, fit
from duo.training.trainer import loss_curve, quieten
from routers.random import Random
from routers.softmax_budget import SoftmaxBudget

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


@pytest.fixture(scope="module")
def data(files, tmp_path_factory):
    config = DataConfig(
        source="files",
        train=[f"{files}/train*.txt"],
        holdouts={"held": [f"{files}/held*.txt"]},
        tokens=16,
        batch_size=4,
    )
    return TextData(config, 300, tmp_path_factory.mktemp("cache"))


def config_of(**changes):
    return TrainingConfig(
        **{"steps": 12, "learning_rate": 1e-3, "warmup_steps": 2, "checkpoint_every": 4, "log_every": 2} | changes
    )


def module_of(seed=0, router=None, **changes):
    backbone = toy_backbone(seed, vocabulary=300).train()
    return DuoModule(backbone, router or Random(Spec(3, 16, Budget(1)), p_big=0.5), config_of(**changes), seed)


def weights(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


class Killed(Exception):
    pass


class KillAt(L.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise Killed


def cut_off(module, data, folder, step, options, monkeypatch):
    """Trains until `step` and drops everything that is not on disk."""
    trainer = L.Trainer
    with monkeypatch.context() as patch:
        patch.setattr(
            L, "Trainer", lambda **given: trainer(**given | {"callbacks": [*given["callbacks"], KillAt(step)]})
        )
        with pytest.raises(Killed):
            fit(module, data, folder, "test", options)


@pytest.mark.parametrize("step", [3, 4, 9, 11])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_training_that_was_cut_off_ends_with_the_same_weights(data, tmp_path, monkeypatch, step, accumulate):
    options = QUIET | {"accumulate_grad_batches": accumulate}
    whole = module_of()
    fit(whole, data, tmp_path / "whole", "test", options)
    cut_off(module_of(), data, tmp_path / "cut", step, options, monkeypatch)
    again = module_of()
    fit(again, data, tmp_path / "cut", "test", options)
    assert torch.equal(weights(again), weights(whole))
    assert [step for step, _ in loss_curve(tmp_path / "cut")] == [step for step, _ in loss_curve(tmp_path / "whole")]


class Watcher:
    """Notes what is told of work."""

    def __init__(self):
        self.seen, self.seconds = [], 0.0

    def now(self):
        self.seconds += 1
        return self.seconds

    def look(self, parts):
        self.seen.append([(part.name, part.begun, part.done, part.total, part.note) for part in parts])

    def rest(self):
        pass


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_training_that_goes_on_says_from_where_and_counts_from_there(
    data, tmp_path, monkeypatch, accumulate, caplog, capsys
):
    options = {"accelerator": "cpu", "accumulate_grad_batches": accumulate}
    cut_off(module_of(), data, tmp_path, 9, options, monkeypatch)  # the last checkpoint is of step 8
    caplog.clear()
    watcher, again = Watcher(), module_of()
    with caplog.at_level("INFO", "duo"), watching(watcher):
        fit(again, data, tmp_path, "stage 1", options)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("duo")]
    assert said == ["stage 1  going on from step 8 of 12"]
    assert [[part[:4] for part in parts] for parts in watcher.seen] == [
        [("stage 1", 0.0, 0.0, None), ("step", 8.0, step, 12)] for step in range(9, 13)
    ]
    assert re.fullmatch(r"loss \d\.\d{3}(, [\d,]+ tokens/s)?", watcher.seen[-1][1][4])
    printed = capsys.readouterr()
    assert not re.search(r"\r|it/s", printed.out + printed.err)  # Lightning's own bar is not there


def test_whether_somebody_watches_changes_no_weight(data, tmp_path):
    plain, watched = module_of(), module_of()
    fit(plain, data, tmp_path / "plain", "test", QUIET)
    with watching(Watcher()):
        fit(watched, data, tmp_path / "watched", "test", QUIET)
    assert torch.equal(weights(plain), weights(watched))
    assert loss_curve(tmp_path / "plain") == loss_curve(tmp_path / "watched")


def test_accumulation_gives_the_steps_of_the_whole_batch(data, tmp_path):
    trained = []
    for accumulate in (1, 2, 4):
        trained.append(module_of())
        fit(trained[-1], data, tmp_path / str(accumulate), "test", QUIET | {"accumulate_grad_batches": accumulate})
    assert torch.allclose(weights(trained[0]), weights(trained[1]), atol=1e-5)
    assert torch.allclose(weights(trained[0]), weights(trained[2]), atol=1e-5)


def test_training_lowers_the_loss_and_logs_it(data, tmp_path):
    torch.manual_seed(0)
    module = DuoModule(
        Backbone(toy_backbone(vocabulary=300).config),
        Random(Spec(3, 16, Budget(1)), p_big=0.5),
        config_of(steps=60, learning_rate=1e-2),
    )
    fit(module, data, tmp_path, "test", QUIET)
    curve = loss_curve(tmp_path)
    assert [step for step, _ in curve] == [*range(1, 60, 2)]
    assert curve[-1][1] < curve[0][1] - 0.5
    assert [*tmp_path.glob("tensorboard/events*")]


def test_a_frozen_backbone_stays_and_is_not_in_the_checkpoint(data, tmp_path):
    module = module_of(router=SoftmaxBudget(Spec(3, 16, Budget(1))))
    module.backbone.requires_grad_(False)
    before = {name: value.clone() for name, value in module.backbone.state_dict().items()}
    router_before = weights(module.router)
    fit(module, data, tmp_path, "test", QUIET)
    assert all(torch.equal(value, before[name]) for name, value in module.backbone.state_dict().items())
    assert not torch.equal(weights(module.router), router_before)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert saved
    assert not any(name.startswith("backbone.") for name in saved)


class NotANumberAt(Router):
    """Its loss (or gradient) stops being a number at a step."""

    def __init__(self, spec, progress, gradient=False):
        super().__init__(spec)
        self.inner, self.progress, self.gradient = Random(spec, p_big=0.5), progress, gradient

    def route(self, trial):
        return self.inner.route(trial)

    def loss(self, trial):
        loss = super().loss(trial)
        if trial.progress < self.progress:
            return loss
        return loss + (loss - loss.detach()).abs().sqrt() * 0 if self.gradient else loss * torch.nan


@pytest.mark.parametrize("gradient", [False, True])
def test_a_loss_or_gradient_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(data, tmp_path, gradient):
    module = module_of(router=NotANumberAt(Spec(3, 16, Budget(1)), 0.5, gradient))
    with pytest.raises(FloatingPointError, match=r"test: the (loss|gradient's norm) is nan at step 6 of 12.*last.ckpt"):
        fit(module, data, tmp_path, "test", QUIET)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert all(value.isfinite().all() for value in saved["state_dict"].values() if value.is_floating_point())
    assert weights(module).isfinite().all()


def test_a_checkpoint_cut_short_is_named_and_kept(data, tmp_path):
    fit(module_of(), data, tmp_path, "test", QUIET)
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match="last.ckpt cannot be read: delete it"):
        fit(module_of(), data, tmp_path, "test", QUIET)
    assert checkpoint.stat().st_size == 1000


def test_a_checkpoint_that_the_disk_has_no_room_for_is_named_and_the_last_one_kept(data, tmp_path, monkeypatch):
    fit(module_of(steps=4), data, tmp_path, "test", QUIET)
    kept = (tmp_path / "last.ckpt").read_bytes()

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device: '.*last.ckpt'"):
        fit(module_of(steps=12), data, tmp_path, "test", QUIET)
    assert (tmp_path / "last.ckpt").read_bytes() == kept
    assert not [*tmp_path.glob(".*.part")]


def test_weights_that_are_no_numbers_are_never_saved(data, tmp_path):
    module = module_of(steps=1, learning_rate=1e38, warmup_steps=0, grad_clip=0)
    fit(module, data, tmp_path, "test", QUIET)
    with pytest.raises(FloatingPointError, match="not finite"):
        save_weights(module.backbone, tmp_path / "backbone.safetensors")
    assert not [*tmp_path.glob("*.safetensors")]


def test_a_training_that_stops_early_is_not_taken_for_a_whole_one(data, tmp_path):
    with pytest.raises(ValueError, match="test ended at step 0 of 12"):
        fit(module_of(), data, tmp_path, "test", QUIET | {"max_time": "00:00:00:00"})


def test_a_batch_that_does_not_divide_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="batch_size=4.*accumulate_grad_batches=3"):
        fit(module_of(), data, tmp_path, "test", QUIET | {"accumulate_grad_batches": 3})


def test_without_loggers_nothing_is_logged(data, tmp_path):
    fit(module_of(steps=2), data, tmp_path, "test", QUIET | {"logger": False})
    assert loss_curve(tmp_path) == []


def test_noise_is_left_out_and_a_warning_that_matters_is_shown(data, tmp_path):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        quieten()
        (tmp_path / "somebody").write_text("was here")
        fit(module_of(steps=1), data, tmp_path, "test", QUIET)
        warnings.warn_explicit("the driver is too old", UserWarning, "torch/cuda.py", 1, module="torch.cuda")
    assert [str(warning.message) for warning in shown] == ["the driver is too old"]


@given(st.integers(1, 500), st.integers(0, 100), st.floats(0, 1))
def test_the_rate_rises_to_its_highest_and_falls_to_its_share(steps, warmup, final):
    config = TrainingConfig(steps=steps, warmup_steps=warmup, min_lr_ratio=final)
    factors = [config.factor(step) for step in range(steps + 1)]
    assert all(0 <= factor <= 1 for factor in factors)
    if warmup < steps:
        assert factors[warmup] == pytest.approx(1)
        assert factors[-1] == pytest.approx(final)
        assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    rising = factors[: min(warmup, steps)]
    assert rising == sorted(rising)
