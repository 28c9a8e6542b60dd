"""The stages of a run: a trained backbone, a trained and calibrated router, and the scores of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from filelock import FileLock, Timeout

from duo.backbone import FORMAT, Backbone
from duo.data.module import TextData
from duo.evaluate import Score, evaluate
from duo.files import is_chief, load_weights, save_weights
from duo.intervals import Gap, gap_closed
from duo.meter import Meter
from duo.recipe import Recipe, digest
from duo.registry import blaming
from duo.router import Router
from duo.training.module import DuoModule
from duo.training.trainer import fit

Say = Callable[[str, str], None]
"""say(stage, what happens)"""


def backbone_digest(recipe: Recipe, data: TextData) -> str:
    """What a trained backbone depends on: its config, its stage, the training tokens, and the code's format number."""
    sizes = [recipe.data.tokens, recipe.data.batch_size, recipe.data.seed]
    return digest([FORMAT, data.digest, sizes, recipe.identity("backbone", "stage1", "trainer")])


def trained_backbone(recipe: Recipe, data: TextData, folder: Path, say: Say) -> Backbone:
    """Stage 1: the backbone under random routing, trained once and kept in `folder`.

    Raises:
        ValueError: a file in the folder is damaged.
        FloatingPointError: the loss is not finite.
    """
    torch.manual_seed(recipe.backbone.seed)
    backbone = Backbone(recipe.backbone)
    weights = folder / "backbone.safetensors"
    with _alone(folder, say):
        if weights.exists():
            say("stage 1", f"reusing the trained backbone in {folder}")
        else:
            say(
                "stage 1",
                f"training a backbone of {sum(backbone.parameter_counts().values()):,} parameters in {folder}",
            )
            router = recipe.new_router("random", {"p_big": recipe.stage1.p_big, "p_skip": recipe.stage1.p_skip})
            module = DuoModule(backbone, router, recipe.stage1, recipe.backbone.seed, "stage 1")
            fit(module, data, folder, "stage 1", recipe.trainer)
            _finish(backbone, weights)
    _load(backbone, weights)
    return backbone


def trained_router(recipe: Recipe, backbone: Backbone, data: TextData, folder: Path, say: Say) -> Router:
    """Stage 3: the router on the trained backbone, then calibrated; both are left in `folder`.

    A stage in which nothing requires a gradient is skipped.

    Raises:
        ValueError: a file in the folder is damaged.
        FloatingPointError: the loss is not finite.
    """
    router = recipe.new_router()
    backbone.requires_grad_(not recipe.stage3.freeze_backbone)
    tuned, weights = folder / "backbone.safetensors", folder / "router.safetensors"
    if not (weights.exists() and tuned.exists()):
        if any(parameter.requires_grad for parameter in (*router.parameters(), *backbone.parameters())):
            say(
                "stage 3",
                f"training router {recipe.router['name']} at budget big={recipe.budget.big}, skip={recipe.budget.skip}",
            )
            module = DuoModule(backbone, router, recipe.stage3, recipe.seed, "stage 3")
            size = recipe.stage3.batch_size or recipe.data.batch_size
            fit(module, data.with_batch_size(size), folder, "stage 3", recipe.trainer)
        if is_chief():
            save_weights(backbone, tuned)
        say("stage 3", "calibrating the router")
        calibrate(router, backbone.to(device_of(recipe)), data, recipe.seed)
        _finish(router, weights)
    _load(backbone, tuned)
    _load(router, weights)
    return router


@torch.no_grad()
def calibrate(router: Router, backbone: Backbone, data: TextData, seed: int = 0) -> None:
    """Calibrates a router on all calibration sets, the same on every process."""
    device = next(backbone.parameters()).device
    backbone.eval(), router.eval().to(device)
    trials = [
        batch.to(device).trial(backbone, seed=seed, purpose="calibration", meter=Meter(enabled=False))
        for name in data.calibration
        for batch in data.calibration_set(name)
    ]
    with blaming(router, "calibrate"):
        router.calibrate(trials)


class Scores(NamedTuple):
    """Scores by row and hold-out, on whole hold-outs and on their subset."""

    whole: dict[str, dict[str, Score]]
    subset: dict[str, dict[str, Score]]


def evaluated(recipe: Recipe, backbone: Backbone, router: Router, data: TextData, say: Say) -> Scores:
    """Scores of the router (row `router`), of its baselines, and, on the subset, of the bounds."""
    rows: dict[str, Router] = {"router": router}
    device = device_of(recipe)
    backbone.to(device)
    for name, (kind, options) in {**baselines(recipe.backbone.layers), **BOUNDS}.items():
        rows[name] = recipe.new_router(kind, options)
        calibrate(rows[name], backbone, data, recipe.seed)
    scores = Scores({}, {})
    for name, row in rows.items():
        whole = name not in BOUNDS and (recipe.whole or row is not router)
        say("evaluation", f"{name} on {', '.join(data.holdouts)}{'' if whole else ', subset'}")
        row.to(device)
        for holdout in data.holdouts:
            if whole:
                score = evaluate(backbone, row, data.holdout(holdout), recipe.seed)
                scores.whole.setdefault(name, {})[holdout] = score
            score = evaluate(backbone, row, data.subset(holdout), recipe.seed)
            scores.subset.setdefault(name, {})[holdout] = score
    return scores


def baselines(layers: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """The rows beside every router: their routers and options."""
    return {
        "all_small": ("fixed", {"pattern": [1] * layers}),
        "all_big": ("fixed", {"pattern": [2] * layers}),
        "random": ("random", {}),
        "fixed_best": ("fixed_best", {}),
    }


BOUNDS: dict[str, tuple[str, dict[str, Any]]] = {"best_of_random": ("best_of_random", {}), "oracle": ("oracle", {})}
"""The rows that consult the labels, on the subset alone: their routers and options."""


def gaps(scores: Scores) -> dict[str, Gap]:
    """Gap closed by the router between the best fixed pattern and the committed oracle, by hold-out."""
    closed = {}
    for holdout, oracle in scores.subset["oracle"].items():
        numerator = scores.whole if "router" in scores.whole else scores.subset
        ours, fixed = (numerator[row][holdout].sequences for row in ("router", "fixed_best"))
        below, above = oracle.sequences, scores.subset["fixed_best"][holdout].sequences
        gap_N, gap_tokens_N = np.zeros(len(ours.loss_N)), np.zeros(len(ours.loss_N))
        at = np.searchsorted(ours.sequence_N, below.sequence_N)
        gap_N[at], gap_tokens_N[at] = above.loss_N - below.loss_N, below.tokens_N
        closed[holdout] = gap_closed(fixed.loss_N - ours.loss_N, ours.tokens_N, gap_N, gap_tokens_N)
    return closed


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
    if is_chief():
        save_weights(module, weights)
        (weights.parent / "last.ckpt").unlink(missing_ok=True)


def _load(module: Router | Backbone, weights: Path) -> None:
    """Loads the weights that the chief process saved, once it has."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
    load_weights(module, weights)
