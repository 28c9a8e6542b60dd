"""Stage 1: a backbone under random routing, trained once (section 2 of the paper)."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from duo.backbone import Backbone
from duo.data.datamodule import TextData
from duo.progress import at
from duo.recipe import Recipe
from duo.recipe.sections import SeededBackboneConfig
from duo.routing import registry
from duo.routing.meter import Meter
from duo.routing.router import Router
from duo.routing.trial import Trial
from duo.routing.uniform import STAGE_1
from duo.stages.cache import Made, finish, hold, load
from duo.stages.identity import backbone_digest, describe
from duo.stages.pretrained import first_weights, with_tokenizer
from duo.storage.processes import agree
from duo.storage.weights import weights_digest
from duo.training.config import Stage1Config
from duo.training.lightning_module import DuoModule
from duo.training.small import fit_small
from duo.training.trainer import fit

FIT_TOKENS = 8192  # of the training set, to fit small FFNs on

log = logging.getLogger(__name__)
WEIGHTS = "backbone.safetensors"


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
        part, backbone = self.recipe.stage1.before, self.recipe.backbone
        if part is None:
            return None
        if backbone.small_from:  # of the big FFNs that this part leaves
            backbone = replace(backbone, small_from=None, small_steps=SeededBackboneConfig().small_steps)
        return TrainedBackbone(replace(self.recipe, backbone=backbone, stage1=Stage1Config(**asdict(part))))

    def open_data(self, cache: Path) -> TextData:
        """The recipe's documents as tokens, those of its pretrained model if it has one; raises as `with_tokenizer`."""
        log.info("data  %s documents, kept in %s", self.recipe.data.source, cache / "data")
        backbone = self.recipe.backbone
        if backbone.pretrained and self.recipe.budget.skip and not self.recipe.stage1.p_skip:
            log.warning(
                "skips  a model that never did without a layer loses nats by each skip of a first or last one: train "
                "for them (stage1.p_skip), or leave budget.skip out"
            )
        data = TextData(with_tokenizer(self.recipe.data, backbone), backbone.vocabulary, cache)
        with at("data"):
            data.setup()
        return data

    def identity(self, data: TextData) -> str:
        """What the training depends on."""
        return backbone_digest(self.recipe, data)

    def is_made(self, data: TextData) -> bool:
        """Whether the data's cache has it."""
        return (self._folder(data) / WEIGHTS).exists()

    def _folder(self, data: TextData) -> Path:
        return data.cache / "backbones" / self.identity(data)[:16]

    def train_or_load(self, data: TextData, device: torch.device) -> Made[Backbone]:
        """The backbone under random routing, trained once and kept in the data's cache.

        Raises:
            ValueError: a file there is damaged.
            FloatingPointError: the loss is not finite.
        """
        config, folder = self.recipe.backbone, self._folder(data)
        torch.manual_seed(config.seed)  # for the initial weights: routes and order come from no generator of torch
        backbone, weights = first_weights(config).pin(self.recipe.budget.pinned), folder / WEIGHTS
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
        coin = registry.build("random", recipe.spec, {"p_big": stage.p_big, "p_skip": stage.p_skip})
        if recipe.backbone.small_from:
            _fit_small(recipe, backbone, coin, data, device)
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(stage.learn == "all" or ("ffn.small." in name) == (stage.learn == "small"))
        parameters = sum(backbone.parameter_counts().values())
        log.info("stage 1  training a backbone of %s parameters in %s", f"{parameters:,}", folder)
        module = DuoModule(backbone, coin, stage, recipe.backbone.seed, STAGE_1)
        about = {"backbone": self.identity(data), "tokens": data.digests.train, **describe(recipe)}
        fit(module, data, folder, "stage 1", recipe.trainer, about)
        backbone.requires_grad_(True)


def _fit_small(recipe: Recipe, backbone: Backbone, coin: Router, data: TextData, device: torch.device) -> None:
    """Makes the small FFNs of the big ones, on the first training sequences; every process makes the same."""
    log.info("stage 1  fitting small FFNs to the big ones, layer by layer")
    sequences = max(FIT_TOKENS // recipe.data.tokens, 1)
    tokens_BT = next(iter(data.batched(sequences).train_dataloader())).tokens_BT.to(device)
    trial = Trial(
        backbone.to(device), tokens_BT, seed=recipe.backbone.seed, purpose=STAGE_1, meter=Meter(enabled=False)
    )
    with at("small FFNs"):
        fit_small(backbone, tokens_BT, coin.route(trial), recipe.backbone.small_steps)
