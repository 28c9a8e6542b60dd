"""Recipes as entries hold them: the keys that apply to a row on a published backbone, and nothing else."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from duo.recipe import Recipe, build
from duo.recipe.first import DEVICES, first_values, flatten, unflatten
from duo.recipe.read import merge

PRESENT = flatten(first_values())
NEVER = {
    "backbone.seed",
    "backbone.pretrained",
    "backbone.small_from",
    "backbone.small_steps",
    "budget.pinned",
    "stage3.freeze_backbone",
}  # of a backbone that stays as it was published
KEPT = {key for key in PRESENT if key.partition(".")[0] in ("backbone", "budget")} - NEVER
KEPT |= {f"data.{key}" for key in ("tokens", "batch_size", "subset_sequences", "subset_tokens", "seed")}
KEPT |= {"router", "full_holdout", "leaderboard.backbone", "seed"}
NEEDED = {"router", "seed", "full_holdout", "leaderboard.backbone", "backbone.layers", "budget.big"}  # of every entry
IF_LEARNED = {key for key in PRESENT if key.startswith("stage3.")} - NEVER
MAY_HOLD = KEPT | IF_LEARNED | {"trainer"}
LARGE = 1 << 62
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
PRIVATE = (
    "output=",
    "cache=",
    "leaderboard=",
    "leaderboard.store=",
    "data.train=",
    "data.mix",
    "data.tokenizer=",
    "task_path=",
    "data.holdouts",
    "data.calibration",
)


def entry_values(recipe: Recipe, backbone: str, learned: bool) -> dict[str, Any]:
    """The recipe's values by dotted key, as far as they apply to a row on that published backbone.

    What is left out (documents, stage 1, devices, what shows the run) changes nothing of the result.

    Raises:
        ValueError: the router's training changes the backbone, or layers are pinned.
    """
    if not recipe.stage3.freeze_backbone:
        raise ValueError("stage3.freeze_backbone=false gives a backbone of its own, which no other entry has")
    if recipe.budget.pinned:
        raise ValueError(f"budget.pinned={recipe.budget.pinned} has no track on the leaderboard: leave it out")
    flat = flatten(recipe.settings) | {"leaderboard.backbone": backbone}
    found = {key: flat[key] for key in flat if key in KEPT or (learned and key in IF_LEARNED)}
    trainer = {key: value for key, value in recipe.trainer.items() if key not in DEVICES}
    return found | ({"trainer": trainer} if learned and trainer else {})


def to_yaml(values: dict[str, Any]) -> str:
    """The recipe as an entry holds it; what it does not say is what it was before the key existed."""
    return OmegaConf.to_yaml({"base": "first"} | unflatten(values))


def read_values(text: str) -> dict[str, Any]:
    """The recipe of an entry as plain values; nothing that it names is loaded.

    Raises:
        ValueError: it is no recipe, or says what no entry does (documents, folders, devices, another recipe).
    """
    try:
        # a few aliases of aliases can stand for more than any memory holds
        if "&" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, LOADER)):
            raise ValueError("recipe.yaml holds an alias: write the value")
        values = yaml.load(text, LOADER)
    except yaml.YAMLError as error:
        raise ValueError(f"recipe.yaml is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError("recipe.yaml is no recipe of an entry")
    _check(values)
    if (base := values.pop("base", None)) != "first":
        raise ValueError(f"recipe.yaml says 'base': {base!r} where an entry says first")
    flat = flatten(values)
    for key in flat:
        if key not in MAY_HOLD:
            raise ValueError(f"recipe.yaml is not that of a published backbone: it says {key[:50]!r}")
    if missing := sorted(NEEDED - {*flat}):
        raise ValueError(f"recipe.yaml lacks {', '.join(missing[:3])}")
    if not isinstance(flat.get("trainer", {}), dict):
        raise ValueError(f"recipe.yaml says trainer: {flat['trainer']!r} where keys should stand")
    for key in DEVICES & {*flat.get("trainer", {})}:
        raise ValueError(f"recipe.yaml names this machine: trainer.{key}")
    # a key that is younger than the entry means what it meant before it existed
    return merge(unflatten({key: PRESENT[key] for key in KEPT - NEEDED}), values)


def from_yaml(text: str) -> Recipe:
    """The recipe of an entry.

    Raises:
        ValueError: it is no recipe, or not as `entry_values` makes it (it names files, say).
    """
    values = read_values(text)
    recipe = build(merge(first_values(), values))
    backbone = recipe.leaderboard.backbone
    if not backbone or not {*flatten(values)} <= {*entry_values(recipe, backbone, learned="stage3" in values)}:
        raise ValueError("recipe.yaml does not hold the keys that apply to a published backbone")
    return recipe


def _check(value: Any) -> None:
    """Raises ValueError for what is none of JSON's values, for numbers too large to be meant and for interpolation."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        parts: list[Any] = [*value, *value.values()]
    elif isinstance(value, list):
        parts = value
    elif isinstance(value, (int, float)) and not abs(value) < LARGE:  # so written, NaN is caught too
        raise ValueError("recipe.yaml holds a number that is not finite or too large")
    elif isinstance(value, str) and "${" in value:
        raise ValueError("recipe.yaml: interpolation (${...}) is not allowed: write the value")
    elif isinstance(value, (str, int, float, type(None))):
        return
    else:
        raise ValueError(f"recipe.yaml holds {type(value).__name__} where only plain values may stand")
    for part in parts:
        _check(part)


def strip_command(command: str) -> str:
    """A command without what belongs to one machine: folders, stores, documents."""
    words = [word for word in shlex.split(command) if not word.startswith(PRIVATE)]
    return shlex.join(
        f"recipe={Path(word.removeprefix('recipe=')).name}" if word.startswith("recipe=") and "/" in word else word
        for word in words
    )
