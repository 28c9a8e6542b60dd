"""Comparisons: every row a recipe of its own, made and scored; one that fails says why, and the others go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from duo.evaluation.row import Row, over_seeds
from duo.recipe.schema import Recipe
from duo.stages.identity import data_of, learns
from duo.stages.score import about, scored
from duo.stages.stage1 import Say, made
from duo.storage.processes import together


def compared(recipe: Recipe, cache: Path, say: Say) -> dict[str, dict[str, Row]]:
    """The rows of a comparison by group and name."""
    found: dict[str, dict[str, Row]] = {}
    for group, rows in recipe.groups().items():
        for name, row in rows.items():
            title = f"{name}{f' at {group}' if group else ''}"
            found.setdefault(group, {})[name] = _over_seeds(row, recipe.compare.seeds, cache, say, title)
    return found


def seeded(recipe: Recipe, seeds: int) -> Iterator[Recipe]:
    """The recipe from each seed if it learns, else once."""
    wanted = seeds if learns(recipe.new_router()) or not recipe.stage3.freeze_backbone else 1
    return (replace(recipe, seed=seed) for seed in range(recipe.seed, recipe.seed + wanted))


def _over_seeds(recipe: Recipe, seeds: int, cache: Path, say: Say, title: str) -> Row:
    """A row, its router trained from each seed if it learns."""
    try:
        rows = []
        for each in seeded(recipe, seeds):
            say("row", f"{title}, seed {each.seed}")
            data = data_of(each, cache)
            backbone, router = made(each, data, say)
            rows.append(scored(each, backbone, router, data, say))
        return over_seeds(rows)
    except (ValueError, FloatingPointError) as error:
        if together():
            raise  # other processes may wait for this one
        say("failed", f"{title}: {error}")
        return replace(about(recipe), failed=str(error))
