"""Who writes: backbone, router and tokenizer, of a recipe (made if need be) or of a run's folder as they lie there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer

from duo.backbone import Backbone
from duo.data.tokenizer import literal, tokenizer_digest
from duo.evaluation.decide import asks_for_labels
from duo.evaluation.downstream import Downstream
from duo.evaluation.result import Result
from duo.evaluation.row import Row
from duo.inference.decoder import Decoder
from duo.recipe import OldKey, Recipe, load
from duo.routing.router import Router
from duo.stages.identity import router_digest
from duo.stages.output import RECIPE, RESULT, TOKENIZER, read_result
from duo.stages.source import backbone_source
from duo.stages.stage3 import train_or_load, train_or_load_router
from duo.storage.weights import load_weights, weights_digest


class Writer(NamedTuple):
    """A backbone with a router and a tokenizer."""

    backbone: Backbone
    router: Router
    tokenizer: Tokenizer


def check_deployable(recipe: Recipe) -> None:
    """Raises ValueError where the recipe's router consults labels: asked about one token of a toy, before any work."""
    shape = replace(recipe.backbone, heads=1, key_value_heads=1, head_dim=2, big=8, small=8, vocabulary=8)
    toy = Backbone(shape).pin(recipe.budget.pinned)
    try:
        Decoder(toy, recipe.new_router(), torch.arange(1), 1).read(torch.zeros(1, 1, dtype=torch.long))
    except Exception as error:  # of a router that has learned nothing yet, any other says nothing
        if asks_for_labels(error):
            raise


def open_writer(recipe: Recipe, folder: Path | None, cache: Path, device: torch.device) -> Writer:
    """What a run left in its folder or, without one, what the recipe makes; raises what these raise."""
    return writer_of_recipe(recipe, cache, device) if folder is None else writer_of_run(folder, recipe, device)


def writer_of_recipe(recipe: Recipe, cache: Path, device: torch.device) -> Writer:
    """The recipe's own; what the cache lacks is trained. Raises what training raises."""
    source = backbone_source(recipe)
    data = source.open_data(cache)
    backbone, router = train_or_load(recipe, source, data, device)
    return Writer(backbone.module, router.module, data.tokenizer)


def writer_of_run(folder: Path, recipe: Recipe, device: torch.device) -> Writer:
    """What a finished run left in its folder; nothing else is read.

    Raises:
        ValueError: the run is not finished, or a file is missing, damaged or not the one that the result is of.
    """
    result = read_result(recipe, folder)
    assert isinstance(result, Result | Downstream)
    backbone, router = Backbone(recipe.backbone).pin(recipe.budget.pinned), recipe.new_router()
    for name, module in (("backbone", backbone), ("router", router)):
        load_weights(module, _left_by(folder, f"{name}.safetensors"))
    tokenizer = literal(_read_tokenizer(_left_by(folder, TOKENIZER)))
    found = {"backbone.safetensors": weights_digest(backbone), TOKENIZER: tokenizer_digest(tokenizer)}
    said = {"backbone.safetensors": result.backbone["digest"], TOKENIZER: result.backbone["tokenizer"]}
    if changed := [name for name in found if found[name] != said[name]]:
        raise ValueError(f"{folder / changed[0]} is not the one that {RESULT} is of: give a folder that nobody changed")
    return Writer(backbone.to(device), router.to(device), tokenizer)


def writer_of_row(recipe: Recipe, found: Row, cache: Path, device: torch.device) -> Writer:
    """What a comparison left in the cache for one of its rows, at the seed that the recipe names; nothing is trained.

    Raises:
        ValueError: the cache lacks it, or holds another backbone or other tokens than the row was scored on.
    """
    again = f"cache={cache}: the same python -m duo.run makes it again, into a new output"
    source = backbone_source(recipe)
    data = source.open_data(cache)
    if data.digests.whole != found.digests["tokens"]:
        raise ValueError(f"the documents are not those of the row: {again}")
    if not source.is_made(data):
        raise ValueError(f"the row's backbone is not in {again}")
    made = source.train_or_load(data, device)
    if recipe.stage3.freeze_backbone and made.digest != found.digests["backbone"]:
        raise ValueError(f"another backbone than the row's is in {again}")
    folder = data.cache / "routers" / router_digest(recipe, recipe.new_router(), made, data)[:16]
    if not (folder / "router.safetensors").exists():
        raise ValueError(f"the row's router is not in {again}")
    router = train_or_load_router(recipe, made, data)
    return Writer(made.module, router.module, data.tokenizer)


def _left_by(folder: Path, name: str) -> Path:
    """A file of a run's folder; raises ValueError where it is missing."""
    if not (folder / name).exists():
        raise ValueError(
            f"{folder} lacks {name}: python -m duo.run recipe={folder / RECIPE} output=NEW leaves it in another folder"
        )
    return folder / name


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers has no exception of its own
        raise ValueError(f"{path} cannot be read ({error}): give a folder that nobody changed") from error


def load_run(folder: Path, settings: Sequence[str]) -> Recipe:
    """The recipe of a run's folder, with settings that change nothing of what lies there (cache, devices).

    Raises:
        ValueError: no run's folder, or settings under which its weights would be others.
    """
    path = folder / RECIPE
    if not path.exists():
        raise ValueError(f"{folder} holds no {RECIPE}: give a run's folder, as python -m duo.run leaves it")
    try:
        theirs = load(str(path))
    except OldKey as error:
        raise ValueError(f"{folder} holds a run of an older duo ({error}): run its recipe again") from error
    except ValueError as error:
        raise ValueError(f"{path} is not as it was written ({error}): run its recipe again") from error
    ours = load(str(path), settings)
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
