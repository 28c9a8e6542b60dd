"""Stage 3: a router on a trained backbone, trained and then calibrated, once (section 2 of the paper)."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch

from duo.backbone import Backbone
from duo.data.datamodule import TextData
from duo.progress import at
from duo.recipe import Recipe
from duo.routing.meter import Meter
from duo.routing.registry import blame
from duo.routing.router import Router, learns
from duo.routing.trial import Trial
from duo.routing.uniform import CALIBRATE, STAGE_3
from duo.stages.cache import Made, finish, hold, load
from duo.stages.identity import describe, router_digest
from duo.stages.source import BackboneSource
from duo.storage.processes import agree, is_chief
from duo.storage.weights import save_weights, weights_digest
from duo.training.lightning_module import DuoModule
from duo.training.options import running_dense
from duo.training.trainer import fit

log = logging.getLogger(__name__)


def train_or_load(
    recipe: Recipe, source: BackboneSource, data: TextData, device: torch.device, row: str = ""
) -> tuple[Made[Backbone], Made[Router]]:
    """The recipe's backbone and router, trained if need be; a backbone that learned with its router is the new one.

    Args:
        row: what the router is called; default: by its own name.
    """
    backbone = source.train_or_load(data, device)
    router = train_or_load_router(recipe, backbone, data, row)
    if not recipe.stage3.freeze_backbone:
        backbone = replace(backbone, digest=weights_digest(backbone.module))
    return backbone, router


def train_or_load_router(recipe: Recipe, backbone: Made[Backbone], data: TextData, row: str = "") -> Made[Router]:
    """The router on the trained backbone, made once and kept in the data's cache, on the backbone's device.

    A stage in which nothing requires a gradient is skipped. A backbone that is not frozen learns too, in place.

    Args:
        row: what the router is called; default: by its own name.

    Raises:
        ValueError: a file there is damaged.
        FloatingPointError: the loss is not finite.
    """
    router, model, row = recipe.new_router(), backbone.module, row or recipe.router["name"]
    device = next(model.parameters()).device
    identity = router_digest(recipe, router, backbone, data)
    folder = data.cache / "routers" / identity[:16]
    weights, tuned = folder / "router.safetensors", folder / "backbone.safetensors"
    model.requires_grad_(not recipe.stage3.freeze_backbone)
    with hold(folder):
        if agree(weights.exists()):
            log.info("stage 3  reusing %s in %s", row, folder)
        else:
            _train(recipe, router, backbone, data, folder, row)
            model.to(device)  # training may have left it elsewhere
            if not recipe.stage3.freeze_backbone and is_chief():
                save_weights(model, tuned)  # first: the router's file says that both are there
            log.info("stage 3  calibrating %s", row)
            with at(f"calibrating {row}"), running_dense(model, recipe.trainer, device):
                calibrate(router, model, data, recipe.seed)
            finish(router, weights)
    if not recipe.stage3.freeze_backbone:
        load(model, tuned)
    load(router, weights)
    return Made(router.to(device), folder, identity)


def _train(recipe: Recipe, router: Router, backbone: Made[Backbone], data: TextData, folder: Path, row: str) -> None:
    """Trains whatever requires a gradient, at the recipe's budget or at the one it names for training."""
    if not recipe.trained_here:
        _train_elsewhere(recipe, router, backbone, data, row)
    elif learns(router, backbone.module):
        log.info("stage 3  training %s at %s in %s", row, recipe.spec.budget, folder)
        module = DuoModule(backbone.module, router, recipe.stage3, recipe.seed, STAGE_3)
        size = recipe.stage3.batch_size or recipe.data.batch_size
        about = {"backbone": backbone.digest, "tokens": data.digests.whole, "router": folder.name, **describe(recipe)}
        fit(module, data.shuffled(recipe.seed, size), folder, "stage 3", recipe.trainer, about)


def _train_elsewhere(recipe: Recipe, router: Router, backbone: Made[Backbone], data: TextData, row: str) -> None:
    """Gives the router the weights of one that the recipe trains at another budget.

    Raises:
        ValueError: at that budget the router has other weights.
    """
    budget = recipe.stage3.budget
    assert budget is not None
    # as that budget's own router: the cache trains it once for all that use it
    budget = replace(budget, pinned=recipe.budget.pinned)
    there = replace(recipe, budget=budget, stage3=replace(recipe.stage3, budget=None))
    weights = train_or_load_router(there, backbone, data, row).module.state_dict()
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
    backbone.eval(), router.eval().to(next(backbone.parameters()).device)
    trials = calibration_trials(backbone, data, seed)
    with blame(router, "calibrate"):
        router.calibrate(trials)


def calibration_trials(backbone: Backbone, data: TextData, seed: int = 0) -> list[Trial]:
    """The calibration sets' batches on a backbone."""
    device = next(backbone.parameters()).device
    return [
        Trial.of(batch.to(device), backbone, seed=seed, purpose=CALIBRATE, meter=Meter(enabled=False))
        for name in data.calibration
        for batch in data.calibration_set(name)
    ]
