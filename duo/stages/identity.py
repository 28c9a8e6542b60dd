"""What backbones, routers and rows depend on, as digests: they name the folders in the cache."""

from __future__ import annotations

from typing import Any

from duo.backbone import FORMAT, Backbone
from duo.backbone.pretrained import files_digest, find_folder
from duo.data.datamodule import TextData
from duo.evaluation.evaluate import evaluate
from duo.evaluation.knowable import score_prediction
from duo.recipe import BACKBONE, Recipe, digest
from duo.routing.calibration import FORMAT as ROUTER_FORMAT
from duo.routing.router import Router, learns
from duo.routing.source import module_digest, source_digest
from duo.stages.cache import Made

ORDER = ("data.batch_size", "data.seed")  # of training
SUBSET = ("full_holdout", "data.subset_sequences", "data.subset_tokens")


def backbone_digest(recipe: Recipe, data: TextData) -> str:
    """What training a backbone depends on: its part of the recipe, the training tokens, the code's format number."""
    # no documents: the digest of their tokens tells what they were, wherever they lie
    part = recipe.identity(*BACKBONE, "data.tokens", *ORDER)
    if model := recipe.backbone.pretrained:
        part["backbone.pretrained"] = files_digest(find_folder(model))  # what it is, wherever it lies
    return digest([FORMAT, data.digests.train, part])


def router_digest(recipe: Recipe, router: Router, backbone: Made[Backbone], data: TextData) -> str:
    """What a router depends on: the backbone's weights, all tokens, its part of the recipe, and its own source."""
    parts = ["budget", "router", "seed", *ORDER]
    if not recipe.stage3.freeze_backbone or learns(router):  # else nothing is trained
        parts += ["stage3", "trainer"]
    source = source_digest(type(router))
    return digest([ROUTER_FORMAT, backbone.digest, data.digests.whole, recipe.identity(*parts), source])


def row_digest(recipe: Recipe, router: Made[Router]) -> str:
    """What a row's scores depend on: the router, the tokens it is scored on, and the source of evaluating."""
    return digest(
        [router.digest, recipe.identity(*SUBSET), module_digest(evaluate.__module__, score_prediction.__module__)]
    )


def describe(recipe: Recipe) -> dict[str, Any]:
    """What a tracker says of a training beside its data and weights."""
    return {"recipe": recipe.settings, "digest": recipe.digest}
