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
from duo.routing.registry import unknown


def recipes() -> dict[str, Path]:
    """The recipes that ship with duo, by name."""
    package = Path(duo.__file__).parent
    folder = next(folder for folder in (package / "recipes", package.parent / "recipes") if folder.is_dir())
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def read(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
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
    of_base = read(str(beside) if beside.suffix in (".yaml", ".yml") else str(base), (*seen, name))
    return merged(of_base, values)


def parsed(overrides: Sequence[str]) -> dict[str, Any]:
    """The values of `key=value` settings, later ones over earlier ones."""
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


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
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


def check_keys(values: dict[str, Any], owner: type, prefix: str) -> None:
    """Raises ValueError where a key is none of a config dataclass, nor of the ones inside it."""
    hints = get_type_hints(owner)
    for key, value in values.items():
        if key not in hints:
            raise ValueError(unknown("key", f"{prefix}{key}", [f"{prefix}{name}" for name in hints]))
        if is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise ValueError(f"{prefix}{key}={value!r} must hold keys: {', '.join(get_type_hints(hints[key]))}")
            check_keys(value, hints[key], f"{prefix}{key}.")
