"""Scores: one row's, kept by the digest of what it depends on, and those of a run beside its baselines and bounds."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from msgspec import UNSET, structs

from duo.backbone import BIG, SMALL, Backbone
from duo.data.batch import Batch
from duo.data.config import DataConfig
from duo.data.datamodule import TextData
from duo.data.tokenizer import tokenizer_digest
from duo.evaluation.evaluate import NOWHERE, evaluate
from duo.evaluation.foresee import foresee_seconds
from duo.evaluation.format import load_struct, save_struct
from duo.evaluation.knowable import Knowledge, Predictor, score_prediction
from duo.evaluation.record import Shelf
from duo.evaluation.row import Row
from duo.evaluation.score import Scores, find_collapses
from duo.progress import at
from duo.recipe import Recipe
from duo.routing.registry import blame
from duo.routing.router import Router, learns
from duo.search.patterns import can_list, count_patterns, counts_of
from duo.search.planned import tell_if_long
from duo.stages.cache import Made, hold
from duo.stages.identity import row_digest
from duo.stages.stage3 import train_or_load_router
from duo.storage.processes import agree, is_chief, rank_and_world
from duo.training.options import running_dense

BOUNDS = ("best_of_random", "oracle")
"""Rows that consult the labels."""

DEEP_SUBSET: dict[str, Any] = {"subset_sequences": 24, "subset_tokens": 20}
"""Of each hold-out, where patterns are too many to list: 480 tokens, for a search may take a second for each."""

SEARCHED = 4  # sequences that are searched together: a killed search loses no more

log = logging.getLogger(__name__)


def with_subset_for_searches(recipe: Recipe) -> Recipe:
    """The recipe with fewer tokens to search on (`DEEP_SUBSET`), if a row that searches has too many patterns to list.

    All rows then share the smaller subset, so that they are still compared on the same tokens. A size that is not the
    default is somebody's wish, and stays.
    """
    # beside a router on its own there is always the oracle
    searching = [row for row in recipe.rows() if not (recipe.compare.names and row.full_holdout)]
    deep = [row for row in searching if not can_list(counts_of(row.backbone.layers, row.budget))]
    if not deep:
        return recipe
    count_CM = counts_of(deep[0].backbone.layers, deep[0].budget)
    default = DataConfig()
    fewer = {name: most for name, most in DEEP_SUBSET.items() if getattr(recipe.data, name) == getattr(default, name)}
    data = replace(recipe.data, **fewer)
    log.info(
        "search  %s patterns in %s layers are too many to list: local search, on %s tokens of %s sequences",
        f"{count_patterns(count_CM):,}", int(count_CM[0].sum()), data.subset_tokens, data.subset_sequences,
    )  # fmt: skip
    return replace(recipe, data=data)


def describe_row(recipe: Recipe) -> Row:
    """A row that is not scored yet."""
    return Row(recipe.router["name"], recipe.router_options, recipe.spec.budget._asdict())


def score_row(recipe: Recipe, backbone: Made[Backbone], router: Made[Router], data: TextData, name: str = "") -> Row:
    """The row of a trained router, out of the cache if it is there.

    Args:
        name: what the row is called; default: by its router.
    """
    folder = data.cache / "rows" / row_digest(recipe, router)[:16]
    with hold(folder):
        if agree((folder / "row.json").exists()):  # all or none: an evaluation waits for every process
            return load_struct(Row, folder, "row.json")
        shelf = Shelf(folder / "searched")
        row = _score(recipe, backbone, router, data, shelf, name or recipe.router["name"])
        if is_chief():
            save_struct(row, folder, "row.json")
            shelf.clear()
    return row


def _score(
    recipe: Recipe, backbone: Made[Backbone], router: Made[Router], data: TextData, shelf: Shelf, name: str
) -> Row:
    where = "" if recipe.full_holdout else ", subset"
    log.info("evaluation  %s on %s%s", name, ", ".join(data.holdouts), where)
    device = next(backbone.module.parameters()).device
    with at(f"evaluating {name}"), running_dense(backbone.module, recipe.trainer, device):
        full = score_holdouts(backbone.module, router.module, data, recipe.seed) if recipe.full_holdout else {}
        # always: searches are scored there alone, and are compared with every row
        if router.module.search_method is None:
            subset = score_holdouts(backbone.module, router.module, data, recipe.seed, full=False)
        else:
            subset = _search_holdouts(backbone.module, router.module, data, recipe.seed, shelf)
        return complete_row(recipe, backbone, router, data, full, subset)


def complete_row(
    recipe: Recipe, backbone: Made[Backbone], router: Made[Router], data: TextData, full: Scores, subset: Scores
) -> Row:
    """The row of these scores, with what else is told of the router."""
    learned = learns(router.module)
    return structs.replace(
        describe_row(recipe),
        digests={"backbone": backbone.digest, "tokens": data.digests.whole},
        learned=learned,
        search=router.module.search_method or UNSET,
        scores=full,
        subset=subset,
        knowledge=measure_knowledge(backbone.module, router.module, data, recipe.seed) or UNSET,
        collapsed={holdout: find_collapses(score) if learned else [] for holdout, score in (full or subset).items()},
    )


def score_holdouts(backbone: Backbone, router: Router, data: TextData, seed: int, full: bool = True) -> Scores:
    """A router's score on each hold-out, or on its subset."""
    batches = {holdout: data.holdout(holdout) if full else data.subset(holdout) for holdout in data.holdouts}
    return _evaluate_each(backbone, router, batches, seed, "" if full else "subset of ")


def _evaluate_each(
    backbone: Backbone, router: Router, batches: Mapping[str, Sequence[Batch]], seed: int, part: str,
    shelf: Shelf = NOWHERE,
) -> Scores:  # fmt: skip
    scores = {}
    for holdout, each in batches.items():
        with at(f"{part}{holdout}"):
            scores[holdout] = evaluate(backbone, router, each, seed, shelf)
    return scores


def _search_holdouts(backbone: Backbone, router: Router, data: TextData, seed: int, shelf: Shelf) -> Scores:
    """The score on each hold-out's subset of a router that searches: a few sequences at a time, each time kept.

    A search that was killed goes on with those that are not on the shelf, and its score is that of the whole one.
    """
    few = data.batched(min(SEARCHED, data.batch_size))
    batches = {holdout: [*few.subset(holdout)] for holdout in data.holdouts}
    left = [batch for part in batches.values() for batch in part if not shelf.holds(batch)]
    rank, world = rank_and_world()
    seconds = foresee_seconds(backbone, router, left[rank::world], seed)
    tokens = sum(batch.tokens_BT.numel() for batch in left)
    tell_if_long("search", seconds, f"{tokens} tokens, {SEARCHED} sequences at a time")
    return _evaluate_each(backbone, router, batches, seed, "subset of ", shelf)


def measure_knowledge(backbone: Backbone, router: Router, data: TextData, seed: int) -> dict[str, Knowledge]:
    """What a router that predicts knows, on each hold-out's subset; nothing of one that does not."""
    if not isinstance(router, Predictor):
        return {}
    with at("prediction"), blame(router, "predict"):
        return {holdout: score_prediction(backbone, router, data.subset(holdout), seed) for holdout in data.holdouts}


def describe_backbone(backbone: Made[Backbone], train_tokens: int, data: TextData) -> dict[str, Any]:
    """What a result says of the backbone that its run stands on."""
    return {
        "digest": backbone.digest,
        "parameters": sum(backbone.module.parameter_counts().values()),
        "train_tokens": train_tokens,
        "tokenizer": tokenizer_digest(data.tokenizer),
    }


def baseline_recipes(recipe: Recipe) -> dict[str, Recipe]:
    """The rows beside a run's router, as recipes: its baselines, and the bounds (on the subset alone)."""
    baselines = reference_routers(recipe.spec.layers) | {name: {"name": name} for name in ("random", "fixed_best")}
    bounds = {name: {"name": name} for name in BOUNDS}
    # these train nothing: they stand on the backbone as the run's own router left it
    plain = replace(recipe, stage3=replace(recipe.stage3, freeze_backbone=True, budget=None))
    return {
        name: replace(plain, router=router, full_holdout=name in baselines)
        for name, router in (baselines | bounds).items()
    }


def reference_routers(layers: int) -> dict[str, dict[str, Any]]:
    """The rows outside every budget, as routers with their options: all small, and all big."""
    patterns = {"all_small": [SMALL] * layers, "all_big": [BIG] * layers}
    return {name: {"name": "fixed", "pattern": pattern} for name, pattern in patterns.items()}


def score_baselines(recipe: Recipe, backbone: Made[Backbone], data: TextData) -> dict[str, Row]:
    """The rows beside a run's router, by name."""
    return {
        name: score_row(row, backbone, train_or_load_router(row, backbone, data, name), data, name)
        for name, row in baseline_recipes(recipe).items()
    }
