"""Trained backbones and routers: made once, kept by the digest of all that they depend on, and reused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from filelock import FileLock, Timeout

from duo.backbone import Backbone
from duo.data.datamodule import TextData
from duo.recipe.schema import Recipe
from duo.routing.meter import Meter
from duo.routing.registry import blaming
from duo.routing.router import Router
from duo.routing.trial import Trial
from duo.stages.identity import Made, backbone_digest, learns, router_digest, store_of
from duo.stages.published import fetch_backbone
from duo.storage.processes import agreed, is_chief, together
from duo.storage.weights import check_finite, load_weights, save_weights, weights_digest
from duo.training.lightning_module import DuoModule
from duo.training.trainer import fit

Say = Callable[[str, str], None]
"""say(stage, what happens)"""


def made(recipe: Recipe, data: TextData, say: Say) -> tuple[Made[Backbone], Made[Router]]:
    """The recipe's backbone and router, trained if need be; a backbone that learned with its router is the new one."""
    backbone = trained_backbone(recipe, data, say)
    router = trained_router(recipe, backbone, data, say)
    if not recipe.stage3.freeze_backbone:
        backbone = replace(backbone, digest=weights_digest(backbone.module))
    return backbone, router


def published_backbone(recipe: Recipe, cache: Path, say: Say) -> Made[Backbone]:
    """A backbone of the leaderboard.

    Raises:
        ValueError: it is not there, was changed, or has another shape than the recipe's.
    """
    published = recipe.leaderboard.backbone
    assert published
    folder, head = fetch_backbone(store_of(recipe), published, recipe.backbone, cache)
    say("stage 1", f"using the published backbone {published[:12]}")
    backbone = Backbone(recipe.backbone)
    load_weights(backbone, folder / "backbone.safetensors")
    if weights_digest(backbone) != head.weights:
        raise ValueError(
            f"{folder / 'backbone.safetensors'} is not the published backbone: delete it to fetch it again"
        )
    if (parameters := sum(backbone.parameter_counts().values())) != head.parameters:
        raise ValueError(f"backbones/{published[:12]} says {head.parameters} parameters, it has {parameters}")
    return Made(backbone.to(device_of(recipe)), folder, head.weights)


def trained_backbone(recipe: Recipe, data: TextData, say: Say) -> Made[Backbone]:
    """Stage 1: the backbone under random routing, trained once and kept in the data's cache; or a published one.

    Raises:
        ValueError: a file there is damaged.
        FloatingPointError: the loss is not finite.
    """
    if recipe.leaderboard.backbone:
        return published_backbone(recipe, data.cache, say)
    torch.manual_seed(recipe.backbone.seed)
    backbone, folder = Backbone(recipe.backbone), data.cache / "backbones" / backbone_digest(recipe, data)[:16]
    weights = folder / "backbone.safetensors"
    with _alone(folder, say):
        if agreed(weights.exists()):
            say("stage 1", f"reusing the trained backbone in {folder}")
        else:
            parameters = sum(backbone.parameter_counts().values())
            say("stage 1", f"training a backbone of {parameters:,} parameters in {folder}")
            router = recipe.new_router("random", {"p_big": recipe.stage1.p_big, "p_skip": recipe.stage1.p_skip})
            module = DuoModule(backbone, router, recipe.stage1, recipe.backbone.seed, "stage 1")
            fit(module, data, folder, "stage 1", recipe.trainer)
            _finish(backbone, weights)
    _load(backbone, weights)
    return Made(backbone.to(device_of(recipe)), folder, weights_digest(backbone))


def trained_router(recipe: Recipe, backbone: Made[Backbone], data: TextData, say: Say) -> Made[Router]:
    """Stage 3: the router on the trained backbone, then calibrated, made once and kept in the data's cache.

    A stage in which nothing requires a gradient is skipped. A backbone that is not frozen learns too, in place.

    Raises:
        ValueError: a file there is damaged.
        FloatingPointError: the loss is not finite.
    """
    router, identity, model = recipe.new_router(), router_digest(recipe, backbone, data), backbone.module
    folder = data.cache / "routers" / identity[:16]
    model.requires_grad_(not recipe.stage3.freeze_backbone)
    name, weights, tuned = recipe.router["name"], folder / "router.safetensors", folder / "backbone.safetensors"
    with _alone(folder, say):
        if agreed(weights.exists()):
            say("stage 3", f"reusing router {name} in {folder}")
        else:
            if not recipe.trained_here:
                _train_elsewhere(recipe, router, backbone, data, say)
            elif learns(router, model):
                budget = f"budget big={recipe.budget.big}, skip={recipe.budget.skip}"
                say("stage 3", f"training router {name} at {budget} in {folder}")
                module = DuoModule(model, router, recipe.stage3, recipe.seed, "stage 3")
                size = recipe.stage3.batch_size or recipe.data.batch_size
                fit(module, data.shuffled(recipe.seed, size), folder, "stage 3", recipe.trainer)
            if not recipe.stage3.freeze_backbone and is_chief():
                save_weights(model, tuned)
            say("stage 3", f"calibrating router {name}")
            calibrate(router, model.to(device_of(recipe)), data, recipe.seed)
            _finish(router, weights)
    if not recipe.stage3.freeze_backbone:
        _load(model, tuned)
    _load(router, weights)
    return Made(router.to(next(model.parameters()).device), folder, identity)


def _train_elsewhere(recipe: Recipe, router: Router, backbone: Made[Backbone], data: TextData, say: Say) -> None:
    """Gives the router the weights of one that the recipe trains at another budget.

    Raises:
        ValueError: at that budget the router has other weights.
    """
    budget = recipe.stage3.budget
    assert budget is not None
    there = replace(recipe, budget=budget, stage3=replace(recipe.stage3, budget=None))
    weights = trained_router(there, backbone, data, say).module.state_dict()
    try:
        router.load_state_dict(weights)
    except RuntimeError as error:
        name = recipe.router["name"]
        raise ValueError(
            f"stage3.budget={budget} gives router {name!r} other weights than budget={recipe.budget}: leave it out"
        ) from error


@torch.no_grad()
def calibrate(router: Router, backbone: Backbone, data: TextData, seed: int = 0) -> None:
    """Calibrates a router on all calibration sets, the same on every process."""
    device = next(backbone.parameters()).device
    backbone.eval(), router.eval().to(device)
    trials = [
        Trial.of(batch.to(device), backbone, seed=seed, purpose="calibration", meter=Meter(enabled=False))
        for name in data.calibration
        for batch in data.calibration_set(name)
    ]
    with blaming(router, "calibrate"):
        router.calibrate(trials)


def device_of(recipe: Recipe) -> torch.device:
    """The device that Lightning gives this process.

    Raises:
        ValueError: it has no such device.
    """
    choice = {
        key: recipe.trainer[key] for key in ("accelerator", "devices", "strategy", "num_nodes") if key in recipe.trainer
    }
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options: dict[str, Any] = choice | dict.fromkeys(silent, False)
    try:
        trainer = L.Trainer(**options)
    except Exception as error:  # Lightning raises several kinds
        raise ValueError(f"trainer: {str(error).strip().splitlines()[0]}") from error
    return trainer.strategy.root_device


@contextmanager
def _alone(folder: Path, say: Say) -> Iterator[None]:
    """Holds the folder's lock on the chief process; the others belong to it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not is_chief():
        yield
        return
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("waiting", f"for another run that is at work in {folder}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _finish(module: Router | Backbone, weights: Path) -> None:
    """Saves the weights, from one process, and drops the checkpoint that led to them."""
    check_finite(module)  # on every process, so that all of them stop
    if is_chief():
        save_weights(module, weights)
        (weights.parent / "last.ckpt").unlink(missing_ok=True)


def _load(module: Router | Backbone, weights: Path) -> None:
    """Loads the weights that the chief process saved, once it has."""
    if together():
        torch.distributed.barrier()
    load_weights(module, weights)
