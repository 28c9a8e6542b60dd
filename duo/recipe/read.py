"""Recipes as plain values: YAML over its bases, and `key=value` over both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import duo
from duo.recipe.first import first_values
from duo.recipe.renamed import RENAMED, OldKey
from duo.routing.registry import unknown


def recipes() -> dict[str, Path]:
    """The recipes that ship with duo, by name."""
    package = Path(duo.__file__).parent
    folders = (package / "recipe" / "shipped", package.parent / "recipes")  # of a wheel, of a checkout
    folder = next(folder for folder in folders if folder.is_dir())
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def read(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """A recipe's values over those of its `base`; the base `first` is the table of the first defaults."""
    if name in seen:
        raise ValueError(f"recipe {name} is its own base: {' -> '.join((*seen, name))}")
    if name == "first":
        return first_values()
    path = _find(name)
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
    below = read(str(beside) if beside.suffix in (".yaml", ".yml") else str(base), (*seen, name))
    return merge(below, values)


def _find(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    known = recipes()
    if name not in known:
        raise ValueError(unknown("recipe", name, known) + "; a path must end in .yaml")
    return known[name]


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """The values of `key=value` settings, later ones over earlier ones."""
    values: dict[str, Any] = {}
    for argument in overrides:
        key, equals, _ = argument.partition("=")
        if not equals or not key:
            raise ValueError(f"{argument!r} is no setting: write key=value (see --help)")
        try:
            values = _overlay(values, _plain(OmegaConf.from_dotlist([argument]), argument))
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            raise ValueError(
                f"{argument!r} cannot be read as YAML: quote the value, as in {key}='[\"*.txt\"]'"
            ) from error
    return values


def _plain(config: Any, source: str) -> dict[str, Any]:
    """Plain data; what would be interpolated is refused, for it could read the environment."""
    if not isinstance(config, DictConfig):
        raise ValueError(f"{source} must hold keys and values")
    values = OmegaConf.to_container(config, resolve=False)  # nothing is looked up before it is refused
    if "${" in json.dumps(values, default=str):
        raise ValueError(f"{source}: interpolation (${{...}}) is not allowed in recipes: write the value")
    return values  # type: ignore[return-value]


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Values over those of a base; another router leaves the base's router options behind."""
    before, after = base.get("router"), over.get("router")
    if isinstance(before, dict) and isinstance(after, dict):
        name = before.get("name")
        base = base if after.get("name", name) == name else base | {"router": {}}
    return _overlay(base, over)


def _overlay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Keys of `over` over those of `base`, at every depth; not OmegaConf.merge, which lets no list stand over keys."""
    both = {
        key: _overlay(base[key], over[key])
        for key in base
        if isinstance(base[key], dict) and isinstance(over.get(key), dict)
    }
    return base | over | both


def check_keys(values: dict[str, Any], owner: type, prefix: str = "") -> None:
    """Looks for keys that are none of a config dataclass's, nor of those inside it.

    Raises:
        OldKey: a key has the name that it had once; the new one is named.
        ValueError: there is no such key, or it should hold keys.
    """
    hints = get_type_hints(owner)
    for name, value in values.items():
        key = f"{prefix}{name}"
        if key in RENAMED:
            raise OldKey(f"key {key!r} is called {RENAMED[key]!r} now")
        if name not in hints:
            raise ValueError(unknown("key", key, [f"{prefix}{hint}" for hint in hints]))
        if is_dataclass(hints[name]):
            if not isinstance(value, dict):
                raise ValueError(f"{key}={value!r} must hold keys: {', '.join(get_type_hints(hints[name]))}")
            check_keys(value, hints[name], f"{key}.")
