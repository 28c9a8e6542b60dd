"""Routers by name: the entry points of group `duo.routers`, of this and of every installed package."""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from duo.router import Router

GROUP = "duo.routers"


def available() -> dict[str, EntryPoint]:
    """All routers by name, not yet imported.

    Raises:
        ValueError: two packages register different routers under one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise ValueError(
                f"router {point.name!r} is registered twice: {other.value} by {_package(other)} and "
                f"{point.value} by {_package(point)}; uninstall or rename one of them"
            )
    return found


def load(name: str) -> type[Router]:
    """The router class of that name.

    Raises:
        ValueError: no such name (the nearest ones and all that exist are told), or it is no Router.
    """
    points = available()
    if name not in points:
        raise ValueError(unknown("router", name, points))
    try:
        router = points[name].load()
    except Exception as error:
        raise ValueError(f"router {name!r} of {_package(points[name])} cannot be imported: {error!r}") from error
    if not (isinstance(router, type) and issubclass(router, Router)):
        raise ValueError(f"router {name!r} of {_package(points[name])} is {router!r}, not a subclass of duo.Router")
    return router


def check_options(name: str, options: dict[str, Any]) -> None:
    """Raises ValueError where the constructor of router `name` takes no such option, or none of that type."""
    router = load(name)
    known = [key for key in inspect.signature(router).parameters if key != "spec"]
    hints = get_type_hints(router.__init__)
    for key, value in options.items():
        if key not in known:
            raise ValueError(unknown(f"option of router {name!r}:", key, known))
        if not _fits(value, hints.get(key, Any)):
            raise ValueError(f"router.{key}={value!r} is not of the kind that {name!r} takes: {hints[key]}")


def source_digest(router: type[Router]) -> str:
    """SHA-256 of a router's source: of its module, and of whatever that imports from its own top-level package."""
    package = router.__module__.partition(".")[0]
    texts, left = {}, [router.__module__]
    while left:
        name = left.pop()
        spec = find_spec(name) if name not in texts else None
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            continue
        texts[name] = Path(spec.origin).read_text()
        inside = name if spec.submodule_search_locations else name.rpartition(".")[0]
        left += [other for other in _imported(texts[name], inside) if other.partition(".")[0] == package]
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()


def _imported(text: str, package: str) -> Iterator[str]:
    """Names of the modules that source text inside a package imports, and of what may be modules among them."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            name = resolve_name("." * node.level + (node.module or ""), package) if node.level else str(node.module)
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names if _is_module(f"{name}.{alias.name}"))


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, AttributeError):  # its parent is no package
        return False


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """A sentence that names a miss, the nearest names and all that exist.

    >>> unknown("router", "radnom", ["fixed", "random"])
    "unknown router 'radnom': did you mean random? There are: fixed, random"
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3)
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {what} {name!r}: {guess}There are: {', '.join(known) or 'none'}"


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value out of YAML is of an annotated type; types that YAML does not know are left to the router."""
    parts = get_args(hint)
    if isinstance(hint, UnionType) or get_origin(hint) is Union:
        return any(_fits(value, part) for part in parts)
    if get_origin(hint) in (Sequence, list, tuple):
        return isinstance(value, (list, tuple)) and all(_fits(item, parts[0]) for item in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if hint in (int, str, bool, NoneType):
        return type(value) is hint
    return True


def _package(point: EntryPoint) -> str:
    return f"package {point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
