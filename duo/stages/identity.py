"""What a run's data, backbone and router are, and what they depend on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from torch import nn

from duo.backbone import FORMAT, Backbone
from duo.data.datamodule import TextData
from duo.recipe.schema import Recipe, digest
from duo.routing import registry
from duo.routing.calibration import FORMAT as ROUTER_FORMAT
from duo.routing.router import Router
from duo.routing.source import source_digest
from duo.stages.published import backbone_head, default_store, fetch_tokens
from duo.storage.store import Store

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Made(Generic[Module]):
    """A trained module, the folder of its weights and logs, and its identity: of a backbone, its weights' digest."""

    module: Module
    folder: Path
    digest: str


def data_of(recipe: Recipe, cache: Path) -> TextData:
    """The recipe's documents, or the tokens that were published with its backbone.

    Raises:
        ValueError: published tokens cannot be fetched.
    """
    folder, published = None, recipe.leaderboard.backbone
    if published:
        store = store_of(recipe)
        folder = fetch_tokens(store, backbone_head(store, published).tokens, recipe.data.tokens, cache)
    data = TextData(recipe.data, recipe.backbone.vocabulary, cache, folder)
    data.setup()
    return data


def store_of(recipe: Recipe) -> Store:
    """The leaderboard that a recipe names."""
    return Store(recipe.leaderboard.store or default_store())


def backbone_digest(recipe: Recipe, data: TextData) -> str:
    """What training a backbone depends on: its config, its stage, the training tokens, the code's format number.

    A published backbone is not trained: its own digest.
    """
    if recipe.leaderboard.backbone:
        return recipe.leaderboard.backbone
    sizes = [recipe.data.tokens, recipe.data.batch_size, recipe.data.seed]
    return digest([FORMAT, data.digests.train, sizes, recipe.identity("backbone", "stage1", "trainer")])


def router_digest(recipe: Recipe, backbone: Made[Backbone], data: TextData) -> str:
    """What a router depends on: the backbone's weights, all tokens, its part of the recipe, and its own source."""
    about = recipe.identity("budget", "router", "stage3", "trainer", "seed")
    if recipe.stage3.freeze_backbone and not learns(recipe.new_router()):
        about |= {"stage3": None, "trainer": None}  # nothing is trained
    order = [recipe.data.batch_size, recipe.data.seed]
    source = source_digest(registry.load(recipe.router["name"]))
    return digest([backbone.digest, data.digests.whole, order, ROUTER_FORMAT, about, source])


def learns(*modules: Router | Backbone) -> bool:
    """Whether anything requires a gradient."""
    return any(parameter.requires_grad for module in modules for parameter in module.parameters())
