"""What a recipe is: everything that a run depends on, checked."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from duo.backbone import Budget
from duo.data.config import DataConfig
from duo.recipe.first import flatten, identity_of, unflatten
from duo.recipe.kinds import split_key
from duo.recipe.pretrained import with_shape
from duo.recipe.published import with_digest
from duo.recipe.read import check_keys, merge, nest, overlay, parse_overrides, read
from duo.recipe.sections import CompareConfig, LeaderboardConfig, ReportConfig, SeededBackboneConfig, TasksConfig
from duo.routing import registry
from duo.routing.registry import check_options
from duo.routing.router import Router, Spec
from duo.training.config import Stage1Config, Stage3Config
from duo.training.options import check_trainer

NOT_IN_ROWS = {"output", "cache", "compare", "report", "leaderboard", "tasks", "task_path", "limit", "shots"}
SHARED = ("backbone", "data", "stage1", "stage3", "trainer", "leaderboard", "cache", "seed")
"""What all parts of a report have in common, unless they say otherwise."""


@dataclass(frozen=True)
class Recipe(TasksConfig):
    """A backbone, a router and a budget: everything that a run depends on."""

    backbone: SeededBackboneConfig = field(default_factory=SeededBackboneConfig)
    data: DataConfig = field(default_factory=DataConfig)
    stage1: Stage1Config = field(default_factory=Stage1Config)
    budget: Budget = field(default_factory=lambda: Budget(big=6))
    router: dict[str, Any] = field(default_factory=lambda: {"name": "softmax_budget"})
    """The router's name, and options for its constructor."""
    stage3: Stage3Config = field(default_factory=Stage3Config)
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of lightning.Trainer (devices, precision, ...), and compile, activation_checkpointing; both stages."""
    full_holdout: bool = True
    """Whether the router is scored on full hold-outs (false: on their subset alone, for routers that search)."""
    compare: CompareConfig = field(default_factory=CompareConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    leaderboard: LeaderboardConfig = field(default_factory=LeaderboardConfig)
    seed: int = 0
    """Seed of the router's initial weights and of every draw in evaluation."""
    output: str | None = None
    """Folder of the run (null: outputs/<recipe>-<digest>)."""
    cache: str | None = None
    """Folder of prepared data and trained backbones (null: the user's cache; none: train anew, inside the output)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.budget.of(self.backbone.layers)  # raises where there are too few layers
        if self.tasks and (self.compare.names or self.report.names):
            raise ValueError(f"tasks={','.join(self.tasks)} are answered by one router: leave compare and report out")
        for key, value in (("seed", self.seed), ("backbone.seed", self.backbone.seed)):
            if value < 0:
                raise ValueError(f"{key}={value} must be 0 or more")
        if self.backbone.pretrained and self.leaderboard.backbone:
            raise ValueError(
                f"backbone.pretrained={self.backbone.pretrained} and leaderboard.backbone name two backbones: give one"
            )
        trained = self.backbone.pretrained or self.stage1.before
        if self.backbone.small_from and (self.leaderboard.backbone or not trained):
            raise ValueError(
                f"backbone.small_from={self.backbone.small_from} takes trained big FFNs: give backbone.pretrained or "
                "stage1.before, and no leaderboard.backbone, which has its small ones"
            )
        most, setting = self.backbone.limit
        if self.data.tokens > most:
            raise ValueError(f"data.tokens={self.data.tokens} is more than {setting}={most}")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All values, as plain data."""
        # not dataclasses.asdict: a whole number in a field of broken ones has another digest than the same as 6.0
        return OmegaConf.to_container(OmegaConf.structured(self))  # type: ignore[return-value]

    def identity(self, *parts: str) -> dict[str, Any]:
        """What alters what a run finds, by dotted key, as far as it differs from the first defaults.

        Args:
            parts: sections or keys to look at; none: all of them.
        """
        flat = flatten(self.settings)
        if self.trained_here:
            flat["stage3.budget"] = None  # to name the recipe's own budget changes nothing
        elif budget := flat["stage3.budget"]:
            # the key is younger, and is never another than `budget.pinned`
            flat["stage3.budget"] = {key: value for key, value in budget.items() if key != "pinned"}
        if parts:
            flat = {key: value for key, value in flat.items() if key in parts or key.partition(".")[0] in parts}
        return identity_of(flat)

    @property
    def trained_here(self) -> bool:
        """Whether the router is trained at the budget it is used at."""
        budget, layers = self.stage3.budget, self.backbone.layers
        return budget is None or replace(budget, pinned=self.budget.pinned).of(layers) == self.budget.of(layers)

    @property
    def digest(self) -> str:
        """The run's identity."""
        return digest(self.identity())

    @property
    def spec(self) -> Spec:
        """What the recipe's router is told."""
        counts = self.budget.of(self.backbone.layers)
        return Spec(self.backbone.layers - len(self.budget.pinned), self.backbone.width, counts)

    @property
    def router_options(self) -> dict[str, Any]:
        """The router section without the name."""
        return {key: value for key, value in self.router.items() if key != "name"}

    def new_router(self) -> Router:
        """The recipe's router, initialised from the recipe's seed.

        Raises:
            ValueError: no such router, or impossible options.
        """
        torch.manual_seed(self.seed)  # building is all that may draw from torch's generator
        return registry.build(self.router["name"], self.spec, self.router_options)

    def rows(self) -> list[Recipe]:
        """The recipes of all rows of a comparison, or of a report's comparisons; else this one."""
        parts = [row for part in self.parts.values() for row in part.rows()]
        return parts or [row for rows in self.groups.values() for row in rows.values()] or [self]

    @cached_property
    def parts(self) -> dict[str, Recipe]:
        """The recipes of a report's parts: each its base, what the report changes of the defaults, and its own keys.

        Raises:
            ValueError: a part's recipe is impossible; the part is named.
        """
        ours, defaults = flatten(self.settings), flatten(Recipe().settings)
        changed = {key: value for key, value in ours.items() if value != defaults[key] and key.split(".")[0] in SHARED}
        return {name: self._part(name, unflatten(changed)) for name in self.report.names}

    def _part(self, name: str, shared: dict[str, Any]) -> Recipe:
        own = dict(self.report.parts[name])
        try:
            seeds = {} if self.report.seeds is None else {"compare": {"seeds": self.report.seeds}}
            part = build(merge(merge(merge(read(own.pop("base"), Recipe), shared), seeds), own))
            if part.report.names or not part.compare.names:
                raise ValueError("a part is a comparison: give it compare.rows, and no report")
            return part
        except ValueError as error:
            raise ValueError(f"report.parts.{name}: {error}") from error

    @cached_property
    def groups(self) -> dict[str, dict[str, Recipe]]:
        """The recipes of a comparison by group (a combination of `compare.over`) and row.

        Raises:
            ValueError: a row's recipe is impossible; the row is named.
        """
        over, paths = self.compare.over, [split_key(key) for key in self.compare.over]
        if idle := NOT_IN_ROWS & {path[0] for path in paths}:
            raise ValueError(f"compare.over: {', '.join(sorted(idle))} cannot differ between rows: set it for all")
        found: dict[str, dict[str, Recipe]] = {}
        for chosen in itertools.product(*over.values()):
            changes: dict[str, Any] = {}
            for path, value in zip(paths, chosen, strict=True):
                changes = overlay(changes, nest(path, value))
            # without compare: a row is no comparison itself
            group = merge(self.settings | {"compare": {}}, changes)
            found[name_group(dict(zip(over, chosen, strict=True)))] = {
                row: self._row(row, group) for row in self.compare.names
            }
        return found

    def _row(self, name: str, group: dict[str, Any]) -> Recipe:
        """One row's recipe: its changes over the values of its group; raises ValueError where it is impossible."""
        change = self.compare.rows[name]
        try:
            row = build(merge(group, change))
            if idle := NOT_IN_ROWS & {*change}:
                raise ValueError(f"{', '.join(sorted(idle))} cannot be set for a row: set it for all, or run it alone")
            # the batch size is a row's own: it moves no token
            same = [replace(recipe.data, batch_size=1) for recipe in (self, row)]
            if same[0] != same[1] or self.backbone.vocabulary != row.backbone.vocabulary:
                raise ValueError(
                    "rows are compared on the same tokens: data and backbone.vocabulary must be those of all"
                )
        except ValueError as error:
            raise ValueError(f"compare.rows.{name}: {error}") from error
        return row


def name_group(values: Mapping[str, Any]) -> str:
    """What a comparison calls the group of rows with these values of the keys that it goes over.

    >>> name_group({"budget.big": 4, "stage1.p_skip": 0.2})
    'budget.big=4, stage1.p_skip=0.2'
    """
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items())


def digest(data: Any) -> str:
    """SHA-256 of plain data, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by name or path, with `key=value` overrides; `scale=NAME` is one of its own scales.

    Raises:
        OldKey: a key has the name that it had in an older duo.
        ValueError: an unknown recipe, key, router or option (the nearest ones are named), or an impossible value.
    """
    values = parse_overrides(overrides, Recipe)
    return build(merge(read(name, Recipe, values.pop("scale", None)), values))


@lru_cache(1)
def _defaults() -> Any:
    """The structured config that recipes are merged over, which changes nothing in it; it takes long to make."""
    return OmegaConf.structured(Recipe)


def build(values: dict[str, Any]) -> Recipe:
    """A recipe from plain values, checked; raises as `load` does."""
    check_keys(values, Recipe)
    values = with_digest(with_shape(values))
    try:
        recipe = OmegaConf.to_object(OmegaConf.merge(_defaults(), values))
    except OmegaConfBaseException as error:
        raise ValueError(f"{error.full_key}: {str(error.msg).splitlines()[0] if error.msg else error}") from error
    except TypeError as error:
        raise ValueError(f"a key holds a value of the wrong kind: {error}") from error
    assert isinstance(recipe, Recipe)
    if not isinstance(recipe.router.get("name"), str):
        raise ValueError("router.name must be a router's name")
    check_options(recipe.router["name"], recipe.router_options)
    if recipe.trainer:
        check_trainer(recipe.trainer)
    return recipe
