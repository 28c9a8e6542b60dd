"""An ordinary run: one router beside its baselines and bounds."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from msgspec import UNSET

from duo.evaluation.comparison import place_beside
from duo.evaluation.provenance import provenance
from duo.evaluation.result import Result
from duo.recipe import Recipe
from duo.stages.output import digest_sources, keep_curves, keep_weights, note_backbone
from duo.stages.score import describe_backbone, score_baselines, score_row, with_subset_for_searches
from duo.stages.source import backbone_source
from duo.stages.stage3 import train_or_load
from duo.storage.processes import is_chief
from duo.training.trainer import loss_curve


def run_single(recipe: Recipe, name: str, command: str, folder: Path, cache: Path, device: torch.device) -> Result:
    """Trains what is not trained yet, evaluates, and leaves weights, logs and curves in the folder.

    The result is not saved yet.
    """
    start, identity, recipe = time.time(), recipe.digest, with_subset_for_searches(recipe)
    source = backbone_source(recipe)
    data, train_tokens = source.open_data(cache), source.train_tokens
    note_backbone(folder, source.identity(data))  # before hours of training
    backbone, router = train_or_load(recipe, source, data, device)
    ours = score_row(recipe, backbone, router, data)
    rows = {"router": ours} | score_baselines(recipe, backbone, data)
    beside = {
        holdout: place_beside(rows, "router", holdout, ["random"], ["fixed_best", "oracle"], data.foreign)
        for holdout in data.holdouts
    }
    result = Result(
        recipe=name,
        recipe_digest=identity,
        router=ours.router,
        budget=ours.budget,
        backbone=describe_backbone(backbone, train_tokens, data),
        tokens=data.digests.whole,
        scores=ours.scores,
        baselines={name: row.scores for name, row in rows.items() if name != "router" and row.scores},
        subset={name: row.subset for name, row in rows.items()},
        gap_closed={holdout: found.gap_closed for holdout, found in beside.items()},
        gap_from={holdout: found.gap_from for holdout, found in beside.items()},
        foreign=data.foreign,
        collapsed=ours.collapsed,
        search={name: row.search for name, row in rows.items() if row.search} or UNSET,
        provenance=provenance(recipe.seed, device, time.time() - start, command, digest_sources(recipe)),
    )
    if is_chief():
        keep_weights(folder, backbone, router, data.tokenizer)
        keep_curves(folder, {"stage 1": loss_curve(backbone.folder), "stage 3": loss_curve(router.folder)})
    return result


def check_single(recipe: Recipe, name: str) -> None:
    """Raises ValueError where the recipe has no single router, or none that can be built, before any work."""
    if recipe.compare.names or recipe.report.names:
        raise ValueError(f"{name} compares rows: give a recipe, or a run, of one router")
    recipe.new_router()


def check_cached(recipe: Recipe) -> None:
    """Raises ValueError where what one text needs would be trained for it alone."""
    if recipe.cache == "none":
        raise ValueError("cache=none would train anew for every text: give cache=DIR")
