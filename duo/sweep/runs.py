"""The comparison that a sweep is, and the runs that make it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from duo.recipe import BACKBONE, Recipe, build, digest
from duo.recipe.read import merge
from duo.routing.router import learns
from duo.stages.output import cache_of
from duo.stages.score import reference_routers, with_subset_for_searches

ROUTER = "router"
"""The row of a recipe that has one router."""
LONGEST = 60  # characters of a folder's name, without its digest


class SweepRun(NamedTuple):
    """One group of the sweep's comparison from one seed: a comparison of its own."""

    name: str
    """As people read it."""
    group: str
    seed: int
    rows: list[str]
    recipe: Recipe
    folder: Path
    backbones: dict[str, Recipe]
    """By what it depends on, each backbone that the run trains or waits for, as the recipe of a row."""


def sweep_recipe(base: Recipe, over: dict[str, list[Any]], name: str) -> Recipe:
    """The comparison that the sweep of a recipe is: its rows, or its router beside baselines, over all values.

    Seeds are no groups: rows are averaged over them, as in every comparison.

    Raises:
        ValueError: there is nothing to sweep, or the values do not go together.
    """
    if base.tasks or base.report.names:
        raise ValueError(f"recipe={name} is no run of routers that are scored: a sweep goes over those alone")
    groups = {key: values for key, values in over.items() if key != "seed"}
    change: dict[str, Any] = {"compare": {"over": groups}}
    if not base.compare.names:
        change["compare"] |= {"rows": _rows_beside(base, groups), "minus": ["fixed_best", "random"]}
    if seeds := over.get("seed"):
        change["seed"], change["compare"]["seeds"] = _check_seeds(base, seeds), len(seeds)
    whole = build(merge(base.settings, change))
    if len([*_choices(whole)]) * whole.compare.seeds < 2:
        raise ValueError(
            "there is nothing to sweep: give a key several values, as in seed=0,1,2 (one run is python -m duo.run)"
        )
    return whole


def _check_seeds(base: Recipe, seeds: list[int]) -> int:
    """The first seed; raises ValueError where they are not those that a comparison can average over."""
    if base.compare.seeds > 1:
        raise ValueError(f"seed has {len(seeds)} values and compare.seeds={base.compare.seeds}: leave one of them out")
    first = min(seeds)
    if sorted(seeds) != [*range(first, first + len(seeds))]:
        way = ",".join(str(first + index) for index in range(len(seeds)))
        raise ValueError(f"seed={','.join(map(str, seeds))} leaves numbers out, and rows are averaged: give seed={way}")
    return first


def _rows_beside(base: Recipe, over: dict[str, list[Any]]) -> dict[str, Any]:
    """The recipe's router and what it is compared with; all big is left out where its layers are not always as many."""
    plain: dict[str, Any] = {"stage3": {"freeze_backbone": True, "budget": None}, "full_holdout": True}
    layers = {"backbone.layers", "budget.pinned", "backbone.pretrained"}
    beside: dict[str, Any] = {} if layers & {*over} else {"all_big": reference_routers(base.spec.layers)["all_big"]}
    beside |= {name: {"name": name} for name in ("fixed_best", "random")}
    rows: dict[str, Any] = {ROUTER: {}}
    return rows | {name: {"router": router} | plain for name, router in beside.items()}


def _choices(whole: Recipe) -> Iterator[dict[str, list[Any]]]:
    """`compare.over` of each group: one value a key."""
    over = whole.compare.over
    for values in product(*over.values()):
        yield {key: [value] for key, value in zip(over, values, strict=True)}


def runs_of(whole: Recipe, folder: Path) -> list[SweepRun]:
    """The runs that make a comparison, in its order; other seeds than the first are those of rows that learn.

    Args:
        whole: the sweep's comparison.
        folder: of the sweep.

    Raises:
        ValueError: a combination of values is impossible; it is named.
    """
    seeds = range(whole.seed, whole.seed + whole.compare.seeds)
    cache = str(cache_of(whole, folder).absolute())  # one for all, also with cache=none
    whole = with_subset_for_searches(replace(whole, cache=cache))
    found = []
    for (group, rows), over in zip(whole.groups.items(), _choices(whole), strict=True):
        learned = [name for name, row in rows.items() if not row.stage3.freeze_backbone or learns(row.new_router())]
        for seed in seeds:
            names = [*rows] if seed == whole.seed else learned
            if names:
                recipe = _run_recipe(whole, over, seed, names)
                name = ", ".join(filter(None, (group, f"seed={seed}" if len(seeds) > 1 else "")))
                at = folder / "runs" / f"{_file_name(name)}-{recipe.digest[:8]}"
                recipe = replace(recipe, output=str(at.absolute()))
                made = {digest(row.identity(*BACKBONE, "data")): row for row in map(rows.__getitem__, names)}
                trained = {key: row for key, row in made.items() if not row.leaderboard.backbone}
                found.append(SweepRun(name, group, seed, names, recipe, at, trained))
    return found


def _run_recipe(whole: Recipe, over: dict[str, list[Any]], seed: int, names: list[str]) -> Recipe:
    """One group's comparison from one seed; where rows are left out there is nothing that they are compared with."""
    compare: dict[str, Any] = {"over": over, "seeds": 1}
    if left_out := {*whole.compare.names} - {*names}:
        compare |= {"rows": dict.fromkeys(left_out), "minus": [], "gap": []}
    values = whole.settings
    if left_out:
        values = values | {"compare": values["compare"] | {"knowledge": {}}}
    return build(merge(values, {"seed": seed, "compare": compare}))


def _file_name(name: str) -> str:
    """A run's name as a folder's.

    >>> _file_name('budget.big=2, router.name="random", seed=0')
    'budget.big=2,router.name=random,seed=0'
    """
    return re.sub(r"[^\w.=,+-]+", "", name, flags=re.ASCII)[:LONGEST]
