"""Comparisons: every row a recipe of its own, made and scored; one that fails says why, and the others go on."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from msgspec import structs

from duo.data.datamodule import TextData
from duo.evaluation.comparison import Comparison, compare_rows
from duo.evaluation.knowable import Predictor
from duo.evaluation.provenance import provenance
from duo.evaluation.row import Row, average_rows
from duo.progress import at
from duo.recipe import Recipe
from duo.routing import registry
from duo.stages.output import digest_sources
from duo.stages.score import describe_row, score_row, with_subset_for_searches
from duo.stages.source import backbone_source
from duo.stages.stage3 import train_or_load
from duo.storage.processes import is_distributed

log = logging.getLogger(__name__)


def run_comparison(recipe: Recipe, name: str, command: str, cache: Path, device: torch.device) -> Comparison:
    """Trains and scores what is not there yet; the result is not saved yet.

    Raises:
        ValueError: every row failed.
    """
    _check_predictors(recipe)
    start, identity, recipe = time.time(), recipe.digest, with_subset_for_searches(recipe)
    data = backbone_source(recipe).open_data(cache)  # of all rows
    groups, compare = {}, recipe.compare
    for group, rows in recipe.groups.items():
        where = f" at {group}" if group else ""
        found = {}
        for number, row in enumerate(rows, 1):
            with at(f"row {number} of {len(rows)}"):
                found[row] = _score_seeds(rows[row], compare.seeds, data, device, f"{row}{where}")
        groups[group] = compare_rows(found, compare.minus, compare.gap, compare.known_by, data.foreign)
    failed = [row.failed for rows in groups.values() for row in rows.values()]
    if all(failed):
        raise ValueError(f"every row failed; the first one: {failed[0]}")
    return Comparison(
        recipe=name,
        recipe_digest=identity,
        groups=groups,
        minus=compare.minus,
        gap=compare.gap,
        foreign=data.foreign,
        provenance=provenance(recipe.seed, device, time.time() - start, command, digest_sources(recipe)),
    )


def seeded_recipes(recipe: Recipe, seeds: int) -> Iterator[Recipe]:
    """The recipe from so many seeds, its own first."""
    return (replace(recipe, seed=seed) for seed in range(recipe.seed, recipe.seed + seeds))


def _check_predictors(recipe: Recipe) -> None:
    """Raises ValueError where a row is to say what it knows and its router predicts nothing."""
    for rows in recipe.groups.values():
        for rung, by in recipe.compare.known_by.items():
            name = rows[by].router["name"]
            if not issubclass(registry.load(name), Predictor):
                raise ValueError(
                    f"compare.knowledge.{rung}={by}: router {name!r} predicts nothing (it has no `predict`)"
                )


def _score_seeds(recipe: Recipe, seeds: int, data: TextData, device: torch.device, title: str) -> Row:
    """A row, its router trained from each seed if it learns."""
    rows: list[Row] = []
    try:
        for each in seeded_recipes(recipe, seeds):
            log.info("row  %s, seed %s", title, each.seed)
            rows.append(_score_once(each, data, device, f"{title}, seed {each.seed}"))
            if not rows[0].learned and recipe.stage3.freeze_backbone:
                break  # other seeds would find the same
        return average_rows(rows)
    except (ValueError, FloatingPointError) as error:
        if is_distributed():
            raise  # other processes may wait for this one
        log.warning("failed  %s: %s", title, error)
        return structs.replace(describe_row(recipe), failed=str(error))


def _score_once(recipe: Recipe, data: TextData, device: torch.device, title: str) -> Row:
    """A row of one seed."""
    ours = data.batched(recipe.data.batch_size)
    backbone, router = train_or_load(recipe, backbone_source(recipe), ours, device, title)
    return score_row(recipe, backbone, router, ours, title)
