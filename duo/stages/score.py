"""Scores: one row's, kept by the digest of what it depends on, and those of a run beside its baselines and bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from duo.backbone import Backbone
from duo.data.datamodule import TextData
from duo.evaluation.evaluate import evaluate
from duo.evaluation.format import Scores
from duo.evaluation.row import Row
from duo.evaluation.score import collapsed
from duo.recipe.schema import Recipe, digest
from duo.routing.router import Router
from duo.routing.source import module_digest
from duo.stages.identity import Made, learns
from duo.stages.stage1 import Say, trained_router
from duo.storage.processes import agreed, is_chief


def about(recipe: Recipe) -> Row:
    """A row that is not scored yet."""
    budget = {"big": recipe.budget.big, "skip": recipe.budget.skip}
    return Row(recipe.router["name"], recipe.router_options(), budget)


def scored(recipe: Recipe, backbone: Made[Backbone], router: Made[Router], data: TextData, say: Say) -> Row:
    """The row of a trained router, out of the cache if it is there."""
    parts = [recipe.whole, recipe.data.subset_sequences, recipe.data.subset_tokens]
    folder = data.cache / "rows" / digest([router.digest, parts, module_digest(evaluate.__module__)])[:16]
    if agreed((folder / "row.json").exists()):
        return Row.load(folder)
    say("evaluation", f"{recipe.router['name']} on {', '.join(data.holdouts)}{'' if recipe.whole else ', subset'}")
    whole = score_of(backbone.module, router.module, data, recipe.seed) if recipe.whole else {}
    subset = score_of(backbone.module, router.module, data, recipe.seed, whole=False)
    learned = learns(router.module)
    found = {holdout: collapsed(score) if learned else [] for holdout, score in (whole or subset).items()}
    digests = {"backbone": backbone.digest, "tokens": data.digests.whole}
    row = replace(about(recipe), digests=digests, learned=learned, scores=whole, subset=subset, collapsed=found)
    if is_chief():
        row.save(folder)
    return row


def score_of(backbone: Backbone, router: Router, data: TextData, seed: int, whole: bool = True) -> Scores:
    """A router's score on each hold-out, or on its subset."""
    batches = data.holdout if whole else data.subset
    return {holdout: evaluate(backbone, router, batches(holdout), seed) for holdout in data.holdouts}


def beside(recipe: Recipe) -> dict[str, Recipe]:
    """The rows beside a run's router, as recipes: its baselines, and the bounds (on the subset alone)."""
    baselines = references(recipe.backbone.layers) | {name: {"name": name} for name in ("random", "fixed_best")}
    plain = replace(recipe, stage3=replace(recipe.stage3, freeze_backbone=True, budget=None), null_draws=0)
    return {
        name: replace(plain, router=router, whole=name in baselines)
        for name, router in (baselines | {name: {"name": name} for name in BOUNDS}).items()
    }


def references(layers: int) -> dict[str, dict[str, Any]]:
    """The rows outside every budget, as routers with their options: all small, and all big."""
    return {name: {"name": "fixed", "pattern": [kind] * layers} for name, kind in (("all_small", 1), ("all_big", 2))}


BOUNDS = ("best_of_random", "oracle")
"""Rows that consult the labels."""


def made_beside(
    recipe: Recipe, backbone: Made[Backbone], data: TextData, say: Say
) -> dict[str, tuple[Made[Router], Row]]:
    """The rows beside a run's router: their calibrated routers and their scores, by name."""
    found = {}
    for name, row in beside(recipe).items():
        router = trained_router(row, backbone, data, say)
        found[name] = router, scored(row, backbone, router, data, say)
    return found
