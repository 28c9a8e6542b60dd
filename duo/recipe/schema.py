"""Recipes: what a run is, as YAML over the config dataclasses of their owners."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from duo.backbone.budget import Budget
from duo.data.config import DataConfig
from duo.recipe.read import check_keys, merged, parsed, read
from duo.recipe.sections import CompareConfig, LeaderboardConfig, SeededBackboneConfig
from duo.routing import registry
from duo.routing.registry import check_options
from duo.routing.router import Router, Spec
from duo.training.config import Stage1Config, Stage3Config
from duo.training.options import check_trainer

# What a run's identity does not cover: where it is kept, what is shown of it, and on which devices it runs.
NO_IDENTITY = {
    "": {"output", "cache"},
    "stage1": {"log_every", "checkpoint_every"},
    "stage3": {"log_every", "checkpoint_every"},
    "leaderboard": {"store"},
    "trainer": {
        "accelerator", "devices", "num_nodes", "strategy", "logger", "enable_progress_bar", "enable_model_summary",
        "default_root_dir", "profiler",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A backbone, a router and a budget: everything that a run depends on."""

    backbone: SeededBackboneConfig = field(default_factory=SeededBackboneConfig)
    data: DataConfig = field(default_factory=DataConfig)
    stage1: Stage1Config = field(default_factory=Stage1Config)
    budget: Budget = field(default_factory=lambda: Budget(big=6))
    router: dict[str, Any] = field(default_factory=lambda: {"name": "softmax_budget"})
    """The router's name, and options for its constructor."""
    stage3: Stage3Config = field(default_factory=Stage3Config)
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of lightning.Trainer, for both stages (devices, strategy, precision, ...)."""
    whole: bool = True
    """Whether the router is scored on whole hold-outs (false: on their subset alone, for routers that search)."""
    null_draws: int = 0
    """Draws of labels that no route knows, to measure how much of the gain over the best fixed pattern is luck."""
    compare: CompareConfig = field(default_factory=CompareConfig)
    leaderboard: LeaderboardConfig = field(default_factory=LeaderboardConfig)
    seed: int = 0
    """Seed of the router's initial weights and of every draw in evaluation."""
    output: str | None = None
    """Folder of the run (null: outputs/<recipe>-<digest>)."""
    cache: str | None = None
    """Folder of prepared data and trained backbones (null: the user's cache; none: train anew, inside the output)."""

    def __post_init__(self) -> None:
        self.budget.of(self.backbone.layers)
        for key, value in (("null_draws", self.null_draws), ("seed", self.seed), ("backbone.seed", self.backbone.seed)):
            if value < 0:
                raise ValueError(f"{key}={value} must be 0 or more")
        if self.null_draws and self.compare.names:
            raise ValueError("null_draws needs an ordinary run: leave compare.rows out")
        if self.stage1.p_big + self.stage1.p_skip > 1 or min(self.stage1.p_big, self.stage1.p_skip) < 0:
            chances = f"stage1.p_big={self.stage1.p_big} and stage1.p_skip={self.stage1.p_skip}"
            raise ValueError(f"{chances} must be probabilities of sum at most 1")
        if self.backbone.family == "opt" and self.data.tokens > self.backbone.positions:
            raise ValueError(
                f"data.tokens={self.data.tokens} is more than backbone.positions={self.backbone.positions}"
            )

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All values, as plain data."""
        return OmegaConf.to_container(OmegaConf.structured(self))  # type: ignore[return-value]

    def identity(self, *parts: str) -> dict[str, Any]:
        """The values that alter what a run finds; of all parts, or of those named."""
        values = {key: value for key, value in self.settings.items() if key not in NO_IDENTITY[""]}
        for section, left_out in NO_IDENTITY.items():
            if section:
                values[section] = {key: value for key, value in values[section].items() if key not in left_out}
        if self.trained_here:
            values["stage3"]["budget"] = None
        return {key: values[key] for key in parts or values}

    @property
    def trained_here(self) -> bool:
        """Whether the router is trained at the budget it is used at."""
        budget, layers = self.stage3.budget, self.backbone.layers
        return budget is None or budget.of(layers) == self.budget.of(layers)

    @property
    def digest(self) -> str:
        """The run's identity."""
        return digest(self.identity())

    def router_options(self) -> dict[str, Any]:
        """The router section without the name."""
        return {key: value for key, value in self.router.items() if key != "name"}

    def new_router(self, name: str | None = None, options: dict[str, Any] | None = None) -> Router:
        """The recipe's router, or another for the same backbone and budget, initialised from the recipe's seed.

        Raises:
            ValueError: no such router, or impossible options.
        """
        if name is None:
            name, options = self.router["name"], self.router_options()
        assert name is not None
        torch.manual_seed(self.seed)
        spec = Spec(self.backbone.layers, self.backbone.width, self.budget)
        return registry.build(name, spec, options or {})

    def rows(self) -> list[Recipe]:
        """The recipes of all rows of a comparison; else this one."""
        return [row for rows in self.groups().values() for row in rows.values()] or [self]

    def groups(self) -> dict[str, dict[str, Recipe]]:
        """The recipes of a comparison by group (a combination of `compare.over`) and row.

        Raises:
            ValueError: a row's recipe is impossible; the row is named.
        """
        base, over = self.settings | {"compare": {}}, self.compare.over
        found: dict[str, dict[str, Recipe]] = {}
        for chosen in itertools.product(*over.values()):
            settings = [f"{key}={json.dumps(value)}" for key, value in zip(over, chosen, strict=True)]
            rows = found.setdefault(", ".join(settings), {})
            for name in self.compare.names:
                try:
                    row = build(merged(merged(base, parsed(settings)), self.compare.rows[name]))
                    self._check_row(row, self.compare.rows[name])
                    rows[name] = row
                except ValueError as error:
                    raise ValueError(f"compare.rows.{name}: {error}") from error
        return found

    def _check_row(self, row: Recipe, change: dict[str, Any]) -> None:
        """Raises ValueError where a row cannot stand beside the others, or says what does nothing."""
        idle = {"output", "cache", "null_draws", "compare", "leaderboard"} & {*change}
        if idle:
            raise ValueError(f"{', '.join(sorted(idle))} cannot be set for a row: set it for all, or run it alone")
        same = [replace(recipe.data, batch_size=1) for recipe in (self, row)]
        if same[0] != same[1] or self.backbone.vocabulary != row.backbone.vocabulary:
            raise ValueError("rows are compared on the same tokens: data and backbone.vocabulary must be those of all")


def digest(data: Any) -> str:
    """SHA-256 of plain data, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by name or path, with `key=value` overrides.

    Raises:
        ValueError: an unknown recipe, key, router or option (the nearest ones are named), or an impossible value.
    """
    return build(merged(read(name), parsed(overrides)))


def build(values: dict[str, Any]) -> Recipe:
    """A recipe from plain values, checked; raises as `load` does."""
    check_keys(values, Recipe, "")
    try:
        schema = OmegaConf.structured(Recipe)
        recipe = OmegaConf.to_object(OmegaConf.merge(schema, values))
    except OmegaConfBaseException as error:
        raise ValueError(f"{error.full_key}: {str(error.msg).splitlines()[0] if error.msg else error}") from error
    except TypeError as error:
        raise ValueError(f"a key holds a value of the wrong kind: {error}") from error
    assert isinstance(recipe, Recipe)
    if not isinstance(recipe.router.get("name"), str):
        raise ValueError("router.name must be a router's name")
    check_options(recipe.router["name"], recipe.router_options())
    if recipe.trainer:
        check_trainer(recipe.trainer)
    return recipe
