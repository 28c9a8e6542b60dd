"""Comparisons: every row a recipe of its own, made, scored, and kept by the digest of what it depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from duo.comparison import Row, over_seeds
from duo.data.module import TextData
from duo.files import agreed, is_chief
from duo.recipe import Recipe, digest
from duo.sources import module_digest
from duo.stages import score
from duo.stages.make import Say, backbone_digest, learns, router_digest, trained_backbone, trained_router


def compared(recipe: Recipe, cache: Path, say: Say) -> dict[str, dict[str, Row]]:
    """The rows of a comparison by group and name; one that fails says why, and the others go on."""
    found: dict[str, dict[str, Row]] = {}
    for group, rows in recipe.groups().items():
        for name, row in rows.items():
            title = f"{name}{f' at {group}' if group else ''}"
            found.setdefault(group, {})[name] = _over_seeds(row, recipe.compare.seeds, cache, say, title)
    return found


def _over_seeds(recipe: Recipe, seeds: int, cache: Path, say: Say, title: str) -> Row:
    """A row, its router trained from each seed if it learns."""
    about = recipe.router["name"], recipe.router_options(), {"big": recipe.budget.big, "skip": recipe.budget.skip}
    try:
        wanted = seeds if learns(recipe.new_router()) or not recipe.stage3.freeze_backbone else 1
        rows = []
        for seed in range(recipe.seed, recipe.seed + wanted):
            say("row", f"{title}{f', seed {seed}' if wanted > 1 else ''}")
            rows.append(_scored(replace(recipe, seed=seed), Row(*about), cache, say))
        return over_seeds(rows)
    except (ValueError, FloatingPointError) as error:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            raise  # other processes may wait for this one
        say("failed", f"{title}: {error}")
        return Row(*about, failed=str(error))


def _scored(recipe: Recipe, row: Row, cache: Path, say: Say) -> Row:
    """The row of one seed, out of the cache if it is there."""
    data = TextData(recipe.data, recipe.backbone.vocabulary, cache)
    data.setup()
    key = digest([router_digest(recipe, data), recipe.whole, module_digest(score.__name__)])
    folder = cache / "rows" / key[:16]
    if agreed((folder / "row.json").exists()):
        return Row.load(folder)
    backbone = trained_backbone(recipe, data, say)
    router = trained_router(recipe, backbone, data, say)
    say("evaluation", f"{row.router} on {', '.join(data.holdouts)}{'' if recipe.whole else ', subset'}")
    scores = score.score_of(recipe, backbone, router, data, whole=True) if recipe.whole else None
    subset = score.score_of(recipe, backbone, router, data, whole=False)
    row = replace(row, backbone=backbone_digest(recipe, data), learned=learns(router), scores=scores, subset=subset)
    if is_chief():
        row.save(folder)
    return row
