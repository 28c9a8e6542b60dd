"""Stage 1: a backbone under random routing, trained once (section 2 of the paper)."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from duo.backbone import Backbone
from duo.data.datamodule import TextData
from duo.recipe import Recipe
from duo.routing import registry
from duo.routing.uniform import STAGE_1
from duo.stages.cache import Made, finish, hold, load
from duo.stages.identity import backbone_digest
from duo.stages.pretrained import check_tokens, first_weights, read_tokenizer
from duo.storage.processes import agree
from duo.storage.weights import weights_digest
from duo.training.config import Stage1Config
from duo.training.lightning_module import DuoModule
from duo.training.trainer import fit

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedBackbone:
    """A backbone that a recipe trains."""

    recipe: Recipe
    published: None = None

    @property
    def train_tokens(self) -> int:
        """Tokens of all steps."""
        return self._steps * self.recipe.data.batch_size * self.recipe.data.tokens

    @cached_property
    def _steps(self) -> int:
        """Optimizer steps, those of a first part among them."""
        return self.recipe.stage1.steps + (self._before._steps if self._before else 0)

    @cached_property
    def _before(self) -> TrainedBackbone | None:
        """What the first part of the training gives, which is a backbone like any other."""
        part = self.recipe.stage1.before
        return None if part is None else TrainedBackbone(replace(self.recipe, stage1=Stage1Config(**asdict(part))))

    def open_data(self, cache: Path) -> TextData:
        """The recipe's documents as tokens; raises ValueError where they are not those of its pretrained model."""
        log.info("data  %s documents, kept in %s", self.recipe.data.source, cache / "data")
        data = TextData(self.recipe.data, self.recipe.backbone.vocabulary, cache)
        model = self.recipe.backbone.pretrained
        theirs = read_tokenizer(model) if model else None  # before the documents are read
        data.setup()
        if model and theirs:
            check_tokens(model, theirs, data)
        return data

    def identity(self, data: TextData) -> str:
        """What the training depends on."""
        return backbone_digest(self.recipe, data)

    def train_or_load(self, data: TextData, device: torch.device) -> Made[Backbone]:
        """The backbone under random routing, trained once and kept in the data's cache.

        Raises:
            ValueError: a file there is damaged.
            FloatingPointError: the loss is not finite.
        """
        config, folder = self.recipe.backbone, data.cache / "backbones" / self.identity(data)[:16]
        torch.manual_seed(config.seed)  # for the initial weights: routes and order come from no generator of torch
        backbone = first_weights(config).pin(self.recipe.budget.pinned)
        weights = folder / "backbone.safetensors"
        with hold(folder):
            if agree(weights.exists()):
                log.info("stage 1  reusing the trained backbone in %s", folder)
            else:
                self._train(backbone, data, device, folder)
                finish(backbone, weights)
        load(backbone, weights)
        # identity by weights: elsewhere the same recipe trains others, by rounding
        return Made(backbone.to(device), folder, weights_digest(backbone))

    def _train(self, backbone: Backbone, data: TextData, device: torch.device, folder: Path) -> None:
        """Trains under a router that throws a coin per token and layer."""
        recipe, stage = self.recipe, self.recipe.stage1
        if before := self._before:
            backbone.load_state_dict(before.train_or_load(data, device).module.state_dict())
            data = data.behind(before._steps)
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(stage.learn == "all" or ("ffn.small." in name) == (stage.learn == "small"))
        parameters = sum(backbone.parameter_counts().values())
        log.info("stage 1  training a backbone of %s parameters in %s", f"{parameters:,}", folder)
        coin = registry.build("random", recipe.spec, {"p_big": stage.p_big, "p_skip": stage.p_skip})
        module = DuoModule(backbone, coin, stage, recipe.backbone.seed, STAGE_1)
        fit(module, data, folder, "stage 1", recipe.trainer)
        backbone.requires_grad_(True)
