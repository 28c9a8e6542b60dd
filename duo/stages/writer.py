"""Who writes: backbone, router and tokenizer, of a recipe (made if need be) or of a run's folder as they lie there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer

from duo.backbone import Backbone
from duo.recipe import Recipe, load
from duo.routing.router import Router
from duo.stages.output import RECIPE
from duo.stages.source import backbone_source
from duo.stages.stage3 import train_or_load
from duo.storage.weights import load_weights


class Writer(NamedTuple):
    """A backbone with a router and a tokenizer."""

    backbone: Backbone
    router: Router
    tokenizer: Tokenizer


def writer_of_recipe(recipe: Recipe, cache: Path, device: torch.device) -> Writer:
    """The recipe's own; what the cache lacks is trained. Raises what training raises."""
    source = backbone_source(recipe)
    data = source.open_data(cache)
    backbone, router = train_or_load(recipe, source, data, device)
    return Writer(backbone.module, router.module, data.tokenizer)


def writer_of_run(folder: Path, recipe: Recipe, cache: Path, device: torch.device) -> Writer:
    """What a finished run left in its folder; its tokenizer is the data's, which the cache may lack and prepare.

    Raises:
        ValueError: weights are missing or damaged, or the run's documents have changed since.
    """
    files = {name: folder / f"{name}.safetensors" for name in ("backbone", "router")}
    if missing := [path.name for path in files.values() if not path.exists()]:
        raise ValueError(f"{folder} lacks {' and '.join(missing)}: give the folder of a finished run, or recipe=NAME")
    source = backbone_source(recipe)
    data = source.open_data(cache)
    mark = folder / "backbone.digest"
    if mark.exists() and mark.read_text() != source.identity(data):
        raise ValueError(f"{folder} was made of other documents than are there now: its tokens mean something else")
    backbone, router = Backbone(recipe.backbone).pin(recipe.budget.pinned), recipe.new_router()
    load_weights(backbone, files["backbone"])
    load_weights(router, files["router"])
    return Writer(backbone.to(device), router.to(device), data.tokenizer)


def load_run(folder: Path, settings: Sequence[str]) -> Recipe:
    """The recipe of a run's folder, with settings that change nothing of what lies there (cache, devices).

    Raises:
        ValueError: no run's folder, or settings under which its weights would be others.
    """
    path = folder / RECIPE
    if not path.exists():
        raise ValueError(f"{folder} holds no {RECIPE}: give a run's folder, as python -m duo.run leaves it")
    theirs, ours = load(str(path)), load(str(path), settings)
    if theirs.spec.budget != ours.spec.budget:
        raise ValueError(
            f"the router in {folder} was calibrated for {theirs.budget}, not for {ours.budget}: leave the budget out, "
            "or give recipe=NAME in place of the folder, and a router for that budget is made"
        )
    if theirs.digest != ours.digest:
        before, after = theirs.identity(), ours.identity()
        keys = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
        raise ValueError(f"{', '.join(keys)} cannot differ from what {folder} was made with: leave it out")
    return ours
