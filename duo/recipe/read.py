"""Recipes as plain values: YAML over its bases, and `key=value` over both."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import duo
from duo.recipe.first import first_values
from duo.recipe.kinds import check_kind, check_text, controls, hints_of, required, shown, split_key
from duo.recipe.pretrained import SHAPE
from duo.recipe.renamed import REMOVED, RENAMED, OldKey
from duo.recipe.text import read_text, read_value
from duo.routing.registry import unknown
from duo.storage.files import expand

ENDINGS = (".yaml", ".yml")
MOST_BYTES = 4 << 20  # of a file: /dev/zero has no end
LEFT_BEHIND: tuple[tuple[str, str, Container[str] | None], ...] = (
    ("router", "name", None),
    ("data", "source", ("train", "holdouts", "calibration", "column")),
    ("backbone", "pretrained", SHAPE),
)
"""A section, the key that says whose its other values are, and which of them (None: all)."""


def recipes() -> dict[str, Path]:
    """The recipes that ship with duo, by name."""
    package = Path(duo.__file__).parent
    folders = (package / "recipe" / "shipped", package.parent / "recipes")  # of a wheel, of a checkout
    folder = next(folder for folder in folders if folder.is_dir())
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def short_name(name: str) -> str:
    """What a recipe's runs are called, by its name or path.

    >>> short_name("paper/stage1"), short_name("../mine/router.yaml")
    ('paper-stage1', 'router')
    """
    return Path(name).stem if name.endswith(ENDINGS) else name.replace("/", "-")


def read(name: str, owner: type, scale: object = None) -> dict[str, Any]:
    """A recipe's values over those of its `base`, and so on; the base `first` is the table of the first defaults.

    Args:
        owner: the config dataclass whose settings they are.
        scale: name of one of the recipe's `scales`, whose values stand over all others; None: as it is.

    Raises:
        ValueError: a file is missing, no YAML, or its own base, or there is no such scale.
    """
    values = _read_layers(name, owner)
    scales = values.pop("scales", {})
    if not isinstance(scales, dict) or not all(isinstance(over, dict) for over in scales.values()):
        raise ValueError(f"recipe {name}: scales must hold names, and each of them keys of the recipe")
    if scale is None:
        return values
    scales = {str(key): over for key, over in scales.items()}  # YAML's numbers too
    if str(scale) not in scales:
        raise ValueError(f"recipe {name}: {unknown('scale', str(scale), scales)}")
    return merge(values, scales[str(scale)])


def _read_layers(name: str, owner: type) -> dict[str, Any]:
    """The values of a recipe and its bases, `scales` among them."""
    layers: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    while name != "first":
        path = _find(name)
        file = os.path.realpath(path)  # whatever it is called, in whatever folder
        if file in seen:
            way = [*seen.values()][[*seen].index(file) :]
            raise ValueError(
                f"recipe {name} is its own base: {' -> '.join([*way[:3], *['...'][: len(way) - 3], name])}"
            )
        seen[file] = name
        values = _read_file(path, owner)
        layers.append(values)
        if (base := values.pop("base", None)) is None:
            break
        name = _beside(base, path)
    else:
        layers.append(first_values())
    below: dict[str, Any] = {}
    for values in reversed(layers):
        below = merge(below, values)
    return below


def _read_file(path: Path, owner: type) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ValueError(f"recipe {path} is no file")  # a pipe would be waited for
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"recipe {path} cannot be read: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise ValueError(f"recipe {path} is larger than {MOST_BYTES:,} bytes")
    try:
        return read_text(content.decode(), owner)
    except ValueError as error:  # a UnicodeDecodeError too
        raise ValueError(f"recipe {path} is no recipe: {error}") from error


def _find(name: str) -> Path:
    check_text("recipe", name)
    if controls(name):
        raise ValueError(f"recipe={shown(name)} holds control characters: leave them out")
    if name.endswith(ENDINGS):
        return expand(name)
    known = recipes()
    if name not in known:
        raise ValueError(unknown("recipe", name, known) + "; a path must end in .yaml")
    return known[name]


def _beside(base: Any, path: Path) -> str:
    """A recipe's base by name, or its path as seen from the recipe's folder."""
    if not isinstance(base, str):
        raise ValueError(f"recipe {path}: base={shown(base)} must be a recipe's name, or the path of a YAML file")
    return str(path.parent / expand(base)) if base.endswith(ENDINGS) else base


def parse_overrides(overrides: Sequence[str], owner: type) -> dict[str, Any]:
    """The values of `key=value` settings, later ones over earlier ones."""
    values: dict[str, Any] = {}
    for argument in overrides:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise ValueError(f"{shown(argument)} is no setting: write key=value (see --help)")
        path = split_key(key)
        values = overlay(values, nest(path, read_value(key, path, text, owner)))
    return values


def nest(path: Sequence[str], value: Any) -> dict[str, Any]:
    """A value behind its keys.

    >>> nest(("budget", "big"), 6)
    {'budget': {'big': 6}}
    """
    for part in reversed(path):
        value = {part: value}
    return value


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Values over those of a base; another router, source or model leaves behind what the base says of its own."""
    for section, key, left in LEFT_BEHIND:
        before, after = base.get(section), over.get(section)
        if isinstance(before, dict) and isinstance(after, dict) and after.get(key, before.get(key)) != before.get(key):
            base = base | {section: {name: value for name, value in before.items() if left and name not in left}}
    return overlay(base, over)


def overlay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Keys of `over` over those of `base`, at every depth; not OmegaConf.merge, which lets no list stand over keys."""
    both = {
        key: overlay(base[key], over[key])
        for key in base
        if isinstance(base[key], dict) and isinstance(over.get(key), dict)
    }
    return base | over | both


def check_keys(values: dict[str, Any], owner: type, prefix: str = "") -> None:
    """Looks for keys that are none of a config dataclass's, nor of those inside it, and for values of another kind.

    Raises:
        OldKey: a key has the name that it had once; the new one is named.
        ValueError: there is no such key, or its value is not of its kind.
    """
    hints = hints_of(owner)
    for name, value in values.items():
        key = f"{prefix}{name}"
        if key in RENAMED:
            raise OldKey(f"key {key!r} is called {RENAMED[key]!r} now")
        if key in REMOVED:
            raise OldKey(f"key {key!r} is gone: {REMOVED[key]}")
        if name not in hints:
            raise ValueError(unknown("key", key, [f"{prefix}{hint}" for hint in hints]))
        kind, _ = required(hints[name])
        if is_dataclass(kind) and isinstance(value, dict):
            check_keys(value, kind, f"{key}.")  # type: ignore[arg-type]
        elif is_dataclass(kind) and value is not None:
            raise ValueError(f"{key}={shown(value)} must hold keys: {', '.join(hints_of(kind))}")
        else:
            check_kind(key, value, hints[name])
