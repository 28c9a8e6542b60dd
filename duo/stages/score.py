"""The scores of a run: its router, the rows beside every router, and how much of the gap it closes."""

from __future__ import annotations

from typing import Any, NamedTuple

from duo.backbone import Backbone
from duo.data.module import TextData
from duo.evaluate import evaluate
from duo.intervals import Estimate, gap_between
from duo.recipe import Recipe
from duo.report import Luck
from duo.router import Router
from duo.score import Score
from duo.stages.luck import luck
from duo.stages.make import Say, calibrate, device_of


class Scores(NamedTuple):
    """Scores by row and hold-out, on whole hold-outs and on their subset."""

    whole: dict[str, dict[str, Score]]
    subset: dict[str, dict[str, Score]]


def evaluated(
    recipe: Recipe, backbone: Backbone, router: Router, data: TextData, say: Say
) -> tuple[Scores, dict[str, Luck]]:
    """Scores of the router (row `router`), of its baselines, and, on the subset, of the bounds; and the luck null."""
    rows: dict[str, Router] = {"router": router}
    backbone.to(device_of(recipe))
    for name, (kind, options) in {**baselines(recipe.backbone.layers), **BOUNDS}.items():
        rows[name] = recipe.new_router(kind, options)
        calibrate(rows[name], backbone, data, recipe.seed)
    scores = Scores({}, {})
    for name, row in rows.items():
        whole = name not in BOUNDS and (recipe.whole or row is not router)
        say("evaluation", f"{name} on {', '.join(data.holdouts)}{'' if whole else ', subset'}")
        scores.subset[name] = score_of(recipe, backbone, row, data, whole=False)
        if whole:
            scores.whole[name] = score_of(recipe, backbone, row, data, whole=True)
    if not recipe.null_draws:
        return scores, {}
    ours, fixed = scores.subset["router"], scores.subset["fixed_best"]
    real = {holdout: (ours[holdout], fixed[holdout]) for holdout in data.holdouts}
    return scores, luck(recipe, backbone, rows["router"], rows["fixed_best"], data, real, say)


def score_of(recipe: Recipe, backbone: Backbone, router: Router, data: TextData, whole: bool) -> dict[str, Score]:
    """A router's score on each hold-out, or on its subset."""
    device = device_of(recipe)
    backbone.to(device), router.to(device)
    batches = data.holdout if whole else data.subset
    return {holdout: evaluate(backbone, router, batches(holdout), recipe.seed) for holdout in data.holdouts}


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


def gaps(scores: Scores) -> dict[str, Estimate]:
    """Gap closed by the router between the best fixed pattern and the committed oracle, by hold-out."""
    ours = scores.whole if "router" in scores.whole else scores.subset
    rows = ours["router"], ours["fixed_best"], scores.subset["fixed_best"], scores.subset["oracle"]
    return {holdout: gap_between(*(row[holdout].sequences for row in rows)) for holdout in rows[0]}
