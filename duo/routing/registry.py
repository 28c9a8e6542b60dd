"""Routers by name: the entry points of group `duo.routers`, of this and of every installed package."""

from __future__ import annotations

import difflib
import inspect
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn, get_args, get_type_hints

import msgspec

from duo.routing.router import Router, Spec

GROUP = "duo.routers"


def available() -> dict[str, list[EntryPoint]]:
    """All routers by name, not yet imported; a name has several where packages clash."""
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        points = found.setdefault(point.name, [])
        if point.value not in [other.value for other in points]:
            points.append(point)
    return found


def load(name: str) -> type[Router]:
    """The router class of that name.

    Raises:
        ValueError: no such name (the nearest ones and all that exist are told), two packages that register it, or what
            they register cannot be imported or is no Router.
    """
    known = available()
    if name not in known:
        raise ValueError(unknown("router", name, known))
    point, *others = known[name]
    if others:
        both = " and ".join(f"{point.value} by package {package(point)}" for point in known[name])
        raise ValueError(f"router {name!r} is registered twice: {both}; uninstall or rename one of them")
    who = f"router {name!r} of package {package(point)}"
    try:
        router = point.load()
    except Exception as error:
        raise ValueError(f"{who} cannot be imported: {describe_error(error)}; mend or uninstall the package") from error
    if not (isinstance(router, type) and issubclass(router, Router)):
        raise ValueError(
            f"{who} is {router!r}, not a subclass of duo.Router: let {point.value} in its entry points name the class"
        )
    return router


def build(name: str, spec: Spec, options: dict[str, Any] | None = None) -> Router:
    """A router by name.

    Raises:
        ValueError: no such router, impossible options, or whatever its constructor raises.
    """
    kind = load(name)
    try:
        return kind(spec, **_structured(kind, options or {}))
    except ValueError:
        raise  # names an option
    except Exception as error:
        given = f"{describe(kind)} cannot be built with options {options or {}}"
        raise ValueError(f"{given}: {describe_error(error)}") from error


@contextmanager
def blame(router: Router, where: str) -> Iterator[None]:
    """Whatever the router's code raises inside becomes a ValueError that names it, its package and the way out."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{describe(type(router))} failed in {where}: {describe_error(error)}; {hint(router)}"
        ) from error


def describe(kind: type[Router]) -> str:
    """A router's registered name and package; of one that is not registered, the class."""
    point = _point(kind)
    return (
        f"router {point.name!r} of package {package(point)}"
        if point
        else f"router {kind.__module__}.{kind.__qualname__}"
    )


def hint(router: Router) -> str:
    """The command that examines a router."""
    point = _point(type(router))
    return (
        f"python -m duo.plugins check {point.name}" if point else "duo.testing.run_checks tells what is wrong with it"
    )


def describe_error(error: BaseException) -> str:
    """The kind of an exception and its first line."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def package(point: EntryPoint) -> str:
    """The name and version of the package that registers a router."""
    return " ".join(_package(point))


def package_of(name: str) -> tuple[str, str]:
    """Name and version of the package that registers a router; raises ValueError where there is no such router."""
    load(name)
    return _package(available()[name][0])


def _package(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("unknown", "unknown")


def _point(kind: type[Router]) -> EntryPoint | None:
    """The entry point that a class was loaded from."""
    points = [point for points in available().values() for point in points]
    # only among what is imported already: another package may be broken
    return next((one for one in points if getattr(sys.modules.get(one.module), one.attr, None) is kind), None)


def signature(name: str) -> str:
    """The options of a router with their types and defaults; where there is no such router, why."""
    try:
        known = inspect.signature(load(name)).parameters.values()
    except ValueError as error:
        return str(error)
    return ", ".join(str(option) for option in known if option.name != "spec")


def check_options(name: str, options: dict[str, Any]) -> None:
    """Raises ValueError where the constructor of router `name` takes no such option, or none of that type."""
    router = load(name)
    known = [key for key in inspect.signature(router).parameters if key != "spec"]
    hints = _hints(router)
    for key, value in options.items():
        if key not in known:
            raise ValueError(unknown(f"option of router {name!r}:", key, known))
        if not _fits(value, hints.get(key, Any)):
            raise ValueError(f"router.{key}={value!r} is not of the kind that {name!r} takes: {hints[key]}")


def options_of(name: str, kind: Any) -> list[str]:
    """Options of a router that are annotated as of that kind, or that kind and null; none of one that is broken."""
    try:
        hints = get_type_hints(load(name).__init__, include_extras=True)
    except Exception:  # it is told where the recipe is checked
        return []
    return [option for option, hint in hints.items() if kind in (hint, *get_args(hint))]


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """A sentence that names a miss, the nearest names and all that exist.

    >>> unknown("router", "radnom", ["fixed", "random"])
    "unknown router 'radnom': did you mean random? There are: fixed, random"
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3)
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {what} {name!r}: {guess}There are: {', '.join(known) or 'none'}"


def _structured(kind: type[Router], options: dict[str, Any]) -> dict[str, Any]:
    """Options with the dataclasses and tuples that their annotations name, which YAML knows as mappings and lists."""
    hints = _hints(kind)
    return {key: _convert(value, hints.get(key, Any)) for key, value in options.items()}


def _convert(value: Any, hint: Any) -> Any:
    if not isinstance(value, (dict, list)):
        return value
    try:
        return msgspec.convert(value, hint, strict=True, dec_hook=_unknown_to_yaml)
    except (msgspec.ValidationError, TypeError, NotImplementedError):
        return value


def _hints(router: type[Router]) -> dict[str, Any]:
    try:
        return get_type_hints(router.__init__)
    except Exception:  # names that exist for type checkers alone
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value out of YAML is of an annotated type; types that YAML does not know are left to the router."""
    try:
        found = msgspec.convert(value, hint, strict=True, dec_hook=_unknown_to_yaml)
        if _loses(value, found):
            return False
        json.dumps(value, allow_nan=hint is Any)  # msgspec takes NaN and infinity for floats
    except (msgspec.ValidationError, ValueError):
        return False
    except (TypeError, NotImplementedError):
        return True
    return True


def _loses(value: Any, found: Any) -> bool:
    """Whether a mapping has a key that the dataclass made of it, or of a part of it, does not know."""
    if isinstance(value, (list, tuple)) and isinstance(found, (list, tuple)):
        return any(map(_loses, value, found))
    if not isinstance(value, dict):
        return False
    known = found if isinstance(found, dict) else {key: getattr(found, key) for key in value if hasattr(found, key)}
    return any(key not in known or _loses(value[key], known[key]) for key in value)


def _unknown_to_yaml(kind: type, value: Any) -> NoReturn:
    raise NotImplementedError(f"{value} for a {kind}")
