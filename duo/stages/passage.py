"""A text read by a recipe's backbone and router, and by the oracle at the recipe's budget."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from duo.evaluation.passage import Passage, Reader, read_passage
from duo.progress import at
from duo.recipe import Recipe
from duo.routing.climb import start_patterns
from duo.search.patterns import can_list, count_patterns, counts_of
from duo.stages.source import backbone_source
from duo.stages.stage3 import calibration_trials, train_or_load

log = logging.getLogger(__name__)


class ReadText(NamedTuple):
    """A text as it was read, and what is told of its reading."""

    passage: Passage
    backbone: str
    """Digest that names the backbone: of a published one, its own."""
    count_V: np.ndarray
    """How often each token stands in the training data."""
    search: str | None
    """How the oracle's routes were searched for, if not among all that there are."""


def read_with_recipe(
    recipe: Recipe, text: str, name: str, most: int | None, cache: Path, device: torch.device
) -> ReadText:
    """Reads a text's first tokens (see `read_passage`), having trained what the cache lacks.

    Raises:
        ValueError: fewer than two tokens, or what training and routing raise.
    """
    source = backbone_source(recipe)
    data = source.open_data(cache)
    backbone, router = train_or_load(recipe, source, data, device)
    count_CM = counts_of(recipe.backbone.layers, recipe.budget)
    listed = can_list(count_CM)
    log.info("oracle  %s patterns a token%s", f"{count_patterns(count_CM):,}", "" if listed else ": local search")
    calibration = [] if listed else calibration_trials(backbone.module, data, recipe.seed)
    reader = Reader(
        backbone=backbone.module.eval(),
        router=router.module.eval(),
        tokenizer=data.tokenizer,
        length=recipe.data.tokens,
        batch_size=recipe.data.batch_size,
        seed=recipe.seed,
        start_CL=None if listed else start_patterns(calibration, count_CM),
    )
    with at("oracle and router"):
        passage = read_passage(reader, text, name, most)
    return ReadText(passage, source.identity(data), data.count_tokens("train"), None if listed else "local")
