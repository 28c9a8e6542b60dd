"""Recipes: what a run is, as YAML over the config dataclasses of their owners."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import duo
from duo import registry
from duo.backbone import BackboneConfig
from duo.budget import Budget
from duo.data.config import DataConfig
from duo.registry import check_options, unknown
from duo.router import Router, Spec
from duo.training.config import Stage1Config, Stage3Config
from duo.training.options import check_trainer

# What a run's identity does not cover: where it is kept, what is shown of it, and on which devices it runs.
NO_IDENTITY = {
    "": {"output", "cache"},
    "stage1": {"log_every", "checkpoint_every"},
    "stage3": {"log_every", "checkpoint_every"},
    "trainer": {
        "accelerator", "devices", "num_nodes", "strategy", "logger", "enable_progress_bar", "enable_model_summary",
        "default_root_dir", "profiler",
    },
}  # fmt: skip


@dataclass(frozen=True)
class SeededBackboneConfig(BackboneConfig):
    """A backbone and the seed it is trained from."""

    seed: int = 0
    """Seed of the initial weights and of stage 1's random routes."""


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
    seed: int = 0
    """Seed of the router's initial weights and of every draw in evaluation."""
    output: str | None = None
    """Folder of the run (null: outputs/<recipe>-<digest>)."""
    cache: str | None = None
    """Folder of prepared data and trained backbones (null: the user's cache; none: train anew, inside the output)."""

    def __post_init__(self) -> None:
        self.budget.of(self.backbone.layers)
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
        return {key: values[key] for key in parts or values}

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


def digest(data: Any) -> str:
    """SHA-256 of plain data, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def recipes() -> dict[str, Path]:
    """The recipes that ship with duo, by name."""
    package = Path(duo.__file__).parent
    folder = next(folder for folder in (package / "recipes", package.parent / "recipes") if folder.is_dir())
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by name or path, with `key=value` overrides.

    Raises:
        ValueError: an unknown recipe, key, router or option (the nearest ones are named), or an impossible value.
    """
    values = _merged(_read(name), _parsed(overrides))
    _check_keys(values, Recipe, "")
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


def _read(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """A recipe's values over those of its `base`."""
    if name in seen:
        raise ValueError(f"recipe {name} is its own base: {' -> '.join((*seen, name))}")
    known = recipes()
    path = Path(name) if name.endswith((".yaml", ".yml")) else known.get(name)
    if path is None:
        raise ValueError(unknown("recipe", name, known) + "; a path must end in .yaml")
    try:
        values = _plain(OmegaConf.load(path), str(path))
    except OSError as error:
        raise ValueError(f"recipe {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"recipe {path} is no YAML: {error}") from error
    base = values.pop("base", None)
    if base is None:
        return values
    beside = path.parent / str(base)
    of_base = _read(str(beside) if beside.suffix in (".yaml", ".yml") else str(base), (*seen, name))
    return _merged(of_base, values)


def _parsed(overrides: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for argument in overrides:
        key, equals, _ = argument.partition("=")
        if not equals or not key:
            raise ValueError(f"{argument!r} is no setting: write key=value (see --help)")
        try:
            values = _overlaid(values, _plain(OmegaConf.from_dotlist([argument]), argument))
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            raise ValueError(
                f"{argument!r} cannot be read as YAML: quote the value, as in {key}='[\"*.txt\"]'"
            ) from error
    return values


def _plain(config: Any, source: str) -> dict[str, Any]:
    """Plain data; what would be interpolated is refused, for it could read the environment."""
    if not isinstance(config, DictConfig):
        raise ValueError(f"{source} must hold keys and values")
    values = OmegaConf.to_container(config, resolve=False)
    if "${" in json.dumps(values, default=str):
        raise ValueError(f"{source}: interpolation (${{...}}) is not allowed in recipes: write the value")
    return values  # type: ignore[return-value]


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Values over those of a base; another router leaves the base's router options behind."""
    before, after = (values.get("router") for values in (base, over))
    if (
        isinstance(before, dict)
        and isinstance(after, dict)
        and after.get("name", before.get("name")) != before.get("name")
    ):
        base = base | {"router": {}}
    return _overlaid(base, over)


def _overlaid(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _overlaid(base[key], over[key])
        for key in base
        if isinstance(base[key], dict) and isinstance(over.get(key), dict)
    }
    return base | over | both


def _check_keys(values: dict[str, Any], owner: type, prefix: str) -> None:
    hints = get_type_hints(owner)
    for key, value in values.items():
        if key not in hints:
            raise ValueError(unknown("key", f"{prefix}{key}", [f"{prefix}{name}" for name in hints]))
        if is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise ValueError(f"{prefix}{key}={value!r} must hold keys: {', '.join(get_type_hints(hints[key]))}")
            _check_keys(value, hints[key], f"{prefix}{key}.")
