"""Where a run's backbone comes from: trained here, or published; asked once, here, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from duo.backbone import Backbone
from duo.data.datamodule import TextData
from duo.recipe import Recipe
from duo.stages.cache import Made
from duo.stages.published import PublishedBackbone
from duo.stages.stage1 import TrainedBackbone


class BackboneSource(Protocol):
    """One way to come by a backbone and the tokens that belong to it."""

    @property
    def published(self) -> str | None:
        """Digest of the published backbone, if it is one."""

    @property
    def train_tokens(self) -> int:
        """Tokens that the backbone is trained on."""

    def open_data(self, cache: Path) -> TextData:
        """The backbone's tokens, of all splits, prepared or fetched."""

    def identity(self, data: TextData) -> str:
        """What the backbone depends on."""

    def is_made(self, data: TextData) -> bool:
        """Whether `train_or_load` has nothing to train."""

    def train_or_load(self, data: TextData, device: torch.device) -> Made[Backbone]:
        """The backbone itself, made if the data's cache lacks it."""


def backbone_source(recipe: Recipe) -> BackboneSource:
    """Where the recipe's backbone comes from."""
    if recipe.leaderboard.backbone:
        return PublishedBackbone(recipe.leaderboard, recipe.backbone, recipe.data, recipe.budget.pinned)
    return TrainedBackbone(recipe)
