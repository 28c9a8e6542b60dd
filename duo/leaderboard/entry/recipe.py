"""Recipes as entries hold them: on a published backbone, with nothing of the machine they ran on."""

from __future__ import annotations

import functools
import shlex
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from duo.data.config import DataConfig
from duo.recipe.schema import NO_IDENTITY, Recipe, load
from duo.recipe.sections import CompareConfig, LeaderboardConfig
from duo.stages import learns
from duo.training.config import Stage1Config, Stage3Config

KEPT = ("tokens", "batch_size", "subset_sequences", "subset_tokens", "seed")  # of the data, on published tokens
FREE = {"backbone", "budget", "router", "stage3", "trainer", "whole", "seed", "leaderboard.backbone"}
FREE |= {f"data.{key}" for key in KEPT}  # what recipes of entries differ in
LARGE = 1 << 62
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
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


def plain(text: str) -> dict[str, Any]:
    """The recipe of an entry as plain values; nothing that it names is loaded.

    Raises:
        ValueError: it is no recipe, or says what `canonical` leaves out (documents, folders, devices, another recipe).
    """
    try:
        if "&" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, LOADER)):
            raise ValueError("recipe.yaml holds an alias: write the value")
        settings = yaml.load(text, LOADER)
    except yaml.YAMLError as error:
        raise ValueError(f"recipe.yaml is no YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError("recipe.yaml is no resolved recipe")
    _check(settings)
    keys, shared = _known()
    for key, value in _by_key(settings).items():
        if key not in keys or value != shared.get(key, value):
            raise ValueError(f"recipe.yaml is not resolved for a published backbone: it says {key[:50]!r}")
    for key in NO_IDENTITY["trainer"] & {*settings.get("trainer", {})}:
        raise ValueError(f"recipe.yaml names this machine: trainer.{key}")
    return settings


@functools.cache
def _known() -> tuple[set[str], dict[str, Any]]:
    """The keys of a recipe, and the values that all recipes of entries share."""
    ours = _by_key(Recipe().settings)
    free = {key for key in ours if key in FREE or key.partition(".")[0] in FREE} - {"backbone.seed"}
    return {*ours}, {key: value for key, value in ours.items() if key not in free}


def _by_key(settings: dict[str, Any]) -> dict[str, Any]:
    """Values by dotted key; router and trainer, whose keys are others', are one value each."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in ("router", "trainer") and isinstance(value, dict):
            found |= {f"{key}.{name}": part for name, part in value.items()}
        else:
            found[key] = value
    return found


def _check(value: Any) -> None:
    """Raises ValueError for what is none of JSON's values, for numbers too large to be meant and for interpolation."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        parts: list[Any] = [*value, *value.values()]
    elif isinstance(value, list):
        parts = value
    elif isinstance(value, (int, float)) and not abs(value) < LARGE:
        raise ValueError("recipe.yaml holds a number that is not finite or too large")
    elif isinstance(value, str) and "${" in value:
        raise ValueError("recipe.yaml: interpolation (${...}) is not allowed: write the value")
    elif isinstance(value, (str, int, float, type(None))):
        return
    else:
        raise ValueError(f"recipe.yaml holds {type(value).__name__} where only plain values may stand")
    for part in parts:
        _check(part)


def from_yaml(text: str) -> Recipe:
    """The recipe of an entry.

    Raises:
        ValueError: it is no recipe, or not as `canonical` makes it (it names files, say).
    """
    plain(text)
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
