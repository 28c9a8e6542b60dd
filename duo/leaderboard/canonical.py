"""Recipes as entries hold them: on a published backbone, with nothing of the machine they ran on."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import replace
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from duo.data.config import DataConfig
from duo.recipe import NO_IDENTITY, Recipe, load
from duo.sections import CompareConfig, LeaderboardConfig
from duo.stages import learns
from duo.training.config import Stage1Config, Stage3Config

KEPT = ("tokens", "batch_size", "subset_sequences", "subset_tokens", "seed")  # of the data, on published tokens
PRIVATE = ("output=", "cache=", "leaderboard.store=", "data.train=", "data.holdouts", "data.calibration")


def canonical(recipe: Recipe, backbone: str) -> Recipe:
    """The recipe on a published backbone: no documents, stage 1, paths or devices; the result is the same.

    Raises:
        ValueError: the router's training changes the backbone.
    """
    if not recipe.stage3.freeze_backbone:
        raise ValueError("stage3.freeze_backbone=false gives a backbone of its own, which no other entry has")
    return replace(
        recipe,
        backbone=replace(recipe.backbone, seed=0),
        data=DataConfig(**{key: getattr(recipe.data, key) for key in KEPT}),
        stage1=Stage1Config(),
        stage3=recipe.stage3 if learns(recipe.new_router()) else Stage3Config(),
        trainer={key: value for key, value in recipe.trainer.items() if key not in NO_IDENTITY["trainer"]},
        compare=CompareConfig(),
        leaderboard=LeaderboardConfig(backbone=backbone),
        null_draws=0,
        output=None,
        cache=None,
    )


def to_yaml(recipe: Recipe) -> str:
    """The recipe as an entry holds it."""
    return OmegaConf.to_yaml(recipe.settings)


def from_yaml(text: str) -> Recipe:
    """The recipe of an entry.

    Raises:
        ValueError: it is no recipe, or not as `canonical` makes it (it names files, say).
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"recipe.yaml is no YAML: {error}") from error
    if not isinstance(values, dict) or "base" in values:
        raise ValueError("recipe.yaml is no resolved recipe")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(text)
        recipe = load(str(path))
    backbone = recipe.leaderboard.backbone
    if not backbone or recipe.settings != canonical(recipe, backbone).settings:
        raise ValueError("recipe.yaml is not resolved for a published backbone")
    return recipe


def public_command(command: str) -> str:
    """A command without what belongs to one machine: folders, stores, documents."""
    words = [word for word in shlex.split(command) if not word.startswith(PRIVATE)]
    return shlex.join(
        f"recipe={Path(word.removeprefix('recipe=')).name}" if word.startswith("recipe=") and "/" in word else word
        for word in words
    )
