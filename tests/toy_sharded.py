"""Small trainings, on one process or as one of two that torchrun started, whose weights and losses are kept."""

import json
import os
import shutil
import sys
import threading
from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import toy_backbone
from test_training import cut_off
from torch import distributed

from duo import Budget, Router, Spec, replay
from duo.backbone import BIG, SKIP, SMALL, routed
from duo.data import DataConfig, TextData
from duo.storage.processes import is_chief, rank_and_world
from duo.training import DuoModule, TrainingConfig, fit
from duo.training.trainer import loss_curve, quieten
from routers.random import Random

SPEC = Spec(3, 16, Budget(1))
# checkpoints of steps 3 and 6; the norm of every gradient is larger than what it is clipped to
GENTLE = {"steps": 8, "learning_rate": 1e-4, "warmup_steps": 2, "checkpoint_every": 3, "log_every": 1, "grad_clip": 0.1}
PATIENCE = 60  # seconds after which a process that waits for another is taken for hung
TWO = {"accelerator": os.environ.get("ACCELERATOR", "cpu"), "devices": int(os.environ.get("WORLD_SIZE", "2"))}


class Lopsided(Router):
    """Gives every other sequence to one module, and so each of two processes to a module of its own."""

    def route(self, trial):
        rank, world = rank_and_world()
        row_B = torch.arange(len(trial.tokens_BT)) * world + rank
        odd_BT = (row_B % 2)[:, None].expand_as(trial.tokens_BT)
        pairs = [(BIG, SMALL), (SMALL, BIG), (SKIP, BIG)]
        return replay(torch.stack([torch.where(odd_BT == 0, *pair) for pair in pairs], -1))


class Held(L.Callback):
    """What this process holds behind a step, in bytes, and the sequences that it was given."""

    def __init__(self):
        self.held, self.sequences, self.squares = {}, [], []  # of each step's gradient

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.sequences += batch.sequence_B.tolist()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        optimizer = trainer.optimizers[0]
        states = [value for state in optimizer.state.values() for value in state.values() if value.dim()]
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        parts = {"weights": module.parameters(), "gradients": gradients, "optimizer": states}
        self.held = {name: sum(local(tensor).nbytes for tensor in tensors) for name, tensors in parts.items()}
        self.squares.append(sum(float(local(gradient).square().sum()) for gradient in gradients))


def local(tensor):
    """What this process holds of it."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def data_of(files, cache):
    config = DataConfig(
        source="files", train=[f"{files}/train*.txt"], holdouts={"held": [f"{files}/held*.txt"]}, tokens=16,
        batch_size=4,
    )  # fmt: skip
    return TextData(config, 300, cache)


def module_of(router=None, backbone=None, learns="", **changes):
    backbone = toy_backbone(vocabulary=300, **(backbone or {})).train()
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(learns in name)
    return DuoModule(backbone, router or Random(SPEC, p_big=0.5), TrainingConfig(**GENTLE | changes))


def train(data, folder, options=None, cut=None, **changes):
    """Trains, or goes on with what is in the folder; `cut`: is killed at that step.

    Leaves weights in `weights.pt`, and in `RANK.json` what this process held.
    """
    module, options = module_of(**changes), {"accelerator": "cpu"} | (options or {})
    if cut:
        cut_off(module, data, folder, cut, options, pytest.MonkeyPatch())
        return
    trainer, noted = L.Trainer, Held()
    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(L, "Trainer", lambda **given: trainer(**given | {"callbacks": [*given["callbacks"], noted]}))
        fit(module, data, folder, "test", options)
    (folder / f"{rank_and_world()[0]}.json").write_text(
        json.dumps(noted.held | {"sequences": noted.sequences, "squares": noted.squares})
    )
    if is_chief():
        torch.save(module.backbone.state_dict(), folder / "weights.pt")


def found(folder):
    """Weights and losses of a training."""
    return torch.load(folder / "weights.pt"), dict(loss_curve(folder))


KNOBS = {
    "whole": {},
    "untied": {"backbone": {"tied": False}},
    "opt": {"backbone": {"family": "opt"}},
    "block": {"backbone": {"skip_scope": "block"}},
    "small": {"learns": "ffn.small."},
    "accumulated": {"options": {"accumulate_grad_batches": 2}},
    "checkpointed": {"options": {"activation_checkpointing": True}},
    "compiled": {"options": {"compile": "aot_eager"}},
    "half": {"options": {"precision": "bf16-mixed"}},
    "lopsided": {"router": Lopsided(SPEC)},
}
"""What a training of two processes may be like."""
FROM = {"fsdp2": "fsdp2", "ddp": "fsdp2", "fsdp2-ddp": "ddp", "one": "fsdp2"}
"""Who leaves a checkpoint, and who goes on from it."""


def on_each(files, cache, folder):
    """What one of two processes does."""
    quieten()
    data = data_of(files, cache)
    for name, changes in KNOBS.items():
        for strategy in ("fsdp2", "ddp") if name in ("whole", "lopsided") else ("fsdp2",):
            options = TWO | {"strategy": strategy} | changes.get("options", {})
            train(data, folder / f"{name}-{strategy}", **changes | {"options": options})
    for name, after in FROM.items():
        if name != "one":
            train(data, folder / f"cut-{name}", TWO | {"strategy": name.partition("-")[0]}, cut=5)
            distributed.barrier()
            if is_chief():
                shutil.copytree(folder / f"cut-{name}", folder / f"left-{name}")  # for one process
            distributed.barrier()
        train(data, folder / f"cut-{name}", TWO | {"strategy": after})


def without_empty_calls(data, folder):
    """The lopsided training where a module that has no token is not called: it does not end well."""

    def end(word):
        (folder / word).touch()
        os._exit(0)

    folder.mkdir(exist_ok=True)
    threading.Timer(PATIENCE, end, ("hung",)).start()
    with pytest.MonkeyPatch().context() as patch:
        only = lambda ffns, x_ND, weight_NO, module: routed.weighed(ffns[module](x_ND), weight_NO[:, module], x_ND)  # noqa: E731
        patch.setattr(routed, "run_one", only)
        try:
            train(data, folder, TWO | {"strategy": "fsdp2"}, router=Lopsided(SPEC))
        except Exception:
            end("failed")


if __name__ == "__main__":
    torch.set_num_threads(1)
    files, cache, folder = map(Path, sys.argv[1:4])
    if only := sys.argv[4:]:
        quieten()
        for name in only:
            options = TWO | {"strategy": "fsdp2"} | KNOBS[name].get("options", {})
            train(data_of(files, cache), folder / f"{name}-fsdp2", **KNOBS[name] | {"options": options})
        os._exit(0)
    on_each(files, cache, folder)
    distributed.barrier()
    (folder / "done").touch()
    without_empty_calls(data_of(files, cache), folder / "broken")
    os._exit(0)  # at the interpreter's own end torch's threads abort once in a while
