"""What kind of value each setting holds, and whether a value is of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import lru_cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

LARGEST = 1 << 63  # what Arrow, torch's integers and JSON's readers hold
LONGEST = 200  # characters of a name: the board takes no longer ones
DEEPEST = 50  # keys in keys: more is a mistake, and would end Python's stack somewhere
WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text: put it in quotes"}
PARTS = re.compile(r"(?:^|\.)([^.\[\]]+)|\[([^\[\]]+)\]")


def hints_of(owner: Any) -> dict[str, Any]:
    """The types of a config dataclass's fields."""
    return _hints_of(owner)


_hints_of = lru_cache(get_type_hints)  # one recipe asks for them a hundred times


def split_key(key: str) -> tuple[str, ...]:
    """The parts of a dotted key; a part that holds dots itself stands in brackets.

    >>> split_key("data.holdouts.mine"), split_key("compare.over[budget.big]")
    (('data', 'holdouts', 'mine'), ('compare', 'over', 'budget.big'))

    Raises:
        ValueError: a part is empty, a bracket has no other, or there are too many parts.
    """
    found = [*PARTS.finditer(key)]
    parts = tuple(match[1] or match[2] for match in found)
    check_text("a key", key)
    if (
        key.startswith(".")
        or controls(key)
        or sum(len(match[0]) for match in found) != len(key)
        or not 0 < len(parts) <= DEEPEST
    ):
        raise ValueError(f"{shown(key)} is no key: write names with dots between them, as in budget.big")
    return parts


def hint_of(owner: type, path: tuple[str, ...]) -> Any:
    """The type of the setting at a path of keys; Any where a router, or nobody, knows it."""
    if path[:2] in (("compare", "rows"), ("report", "parts")) and len(path) > 2:
        return str if path[3:] == ("base",) else hint_of(owner, path[3:])  # a row, a part are a recipe's changes
    if path[:1] == ("scales",) and len(path) > 2:
        return hint_of(owner, path[2:])  # and so is a scale
    if path[:2] == ("compare", "over") and len(path) > 3:
        try:
            return hint_of(owner, split_key(path[2]) + path[4:])
        except ValueError:
            return Any
    if path == ("router", "name"):
        return str
    hint: Any = owner
    for part in path:
        hint, _ = required(hint)
        if is_dataclass(hint):
            hint = hints_of(hint).get(part, Any)
        else:
            hint = get_args(hint)[-1] if get_origin(hint) in (dict, list) else Any
    return hint


def required(hint: Any) -> tuple[Any, bool]:
    """A type without None, and whether None was part of it."""
    kinds = get_args(hint)
    return (next(kind for kind in kinds if kind is not NoneType), True) if NoneType in kinds else (hint, False)


def shown(value: Any, most: int = 80) -> str:
    """A value on one line, the middle of a long one left out."""
    # Python refuses to write very long numbers in tens
    text = hex(value) if isinstance(value, int) and abs(value) >> 1000 else repr(value)
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"


def check_kind(key: str, value: Any, hint: Any) -> None:
    """Looks whether a value is of a setting's type, or can be read as one (`"3"` as 3).

    Raises:
        ValueError: it is of another; key, value and the way out are named.
    """
    kind, optional = required(hint)
    if value is None or kind is Any:
        if value is None and not optional and kind is not Any:
            raise ValueError(f"{key}=null must be {_words(key, value, kind)}")
        check_plain(key, value)
    elif value == "None" and optional:
        way = f", or {key}=./None for what has that name" if kind is str else ""
        raise ValueError(f"{key}=None: write {key}=null for no value{way}")
    elif get_origin(kind) in (list, dict):
        _check_parts(key, value, kind)
    else:
        check_plain(key, value)
        _check_one(key, value, kind)


def check_plain(key: str, value: Any, depth: int = 0) -> None:
    """Looks whether a value, and all in it, is what YAML and JSON both hold, and is itself the value that is meant.

    Raises:
        ValueError: it is not, or is too large or too deep.
    """
    if depth > DEEPEST:
        raise ValueError(f"{shown(key)} holds more than {DEEPEST} keys or lists inside one another")
    if isinstance(value, Mapping):
        for name, part in value.items():
            check_name(key, name)
            check_plain(f"{key}.{name}", part, depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            check_plain(f"{key}[{index}]", part, depth + 1)
    elif isinstance(value, str):
        check_text(key, value)
    elif isinstance(value, int) and not -LARGEST <= value < LARGEST:
        raise ValueError(
            f"{key}={shown(value)} is out of range: whole numbers go from -2**63 to 2**63 - 1 = {LARGEST - 1}"
        )
    elif not isinstance(value, (int, float, NoneType)):
        raise ValueError(f"{key}={shown(value)} is {type(value).__name__}: write text, a number, true, false or null")


def check_text(key: str, value: str) -> None:
    """Looks whether a text stands for itself.

    Raises:
        ValueError: it is one that OmegaConf gives a meaning, or holds what is no UTF-8.
    """
    if value == "???":
        raise ValueError(f"{key}=??? is a value that is still missing: write it")
    if "${" in value:
        raise ValueError(f"{key}={shown(value)}: interpolation (${{...}}) is not allowed in recipes: write the value")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{key}={shown(value)} is no UTF-8: write it, or name the file, in UTF-8") from None


def check_name(key: str, name: Any) -> None:
    """Raises ValueError where a name that a user chose (of a row, a hold-out, an option) cannot be shown."""
    if not isinstance(name, (str, int)) or name == "":
        raise ValueError(f"{key}: {shown(name)} is no name: write words")
    text = str(name)
    check_text(key, text)
    if controls(text):
        raise ValueError(f"{key}: the name {shown(text)} holds control characters: leave them out")
    if len(text) > LONGEST:
        raise ValueError(f"{key}: the name {shown(text)} has {len(text)} characters: {LONGEST} are allowed")


def controls(text: str) -> bool:
    """Whether a text holds what moves a terminal's cursor, ends a line or a path.

    >>> controls("one line, naïve"), controls("two" + chr(10) + "lines")
    (False, True)
    """
    return any(ord(character) < 32 or 127 <= ord(character) < 160 or character in "\u2028\u2029" for character in text)


def _check_parts(key: str, value: Any, kind: Any) -> None:
    """The same for lists, and for keys of a user's choice."""
    part = get_args(kind)[-1]
    if get_origin(kind) is list and isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            check_kind(f"{key}[{index}]", inner, part)
    elif get_origin(kind) is dict and isinstance(value, Mapping):
        for name, inner in value.items():
            check_name(key, name)
            check_kind(f"{key}.{name}", inner, part)
    else:
        raise ValueError(f"{key}={shown(value)} must be {_words(key, value, kind)}")


def _check_one(key: str, value: Any, kind: Any) -> None:
    """The same for one number, text or truth."""
    try:
        found = kind(value) if isinstance(value, str) and kind in (int, float) else value
    except ValueError:
        found = value
    right = {
        int: isinstance(found, int) and not isinstance(found, bool),
        float: isinstance(found, (int, float)) and not isinstance(found, bool) and math.isfinite(found),
        bool: found in (0, 1) if isinstance(found, (int, float)) else isinstance(found, str),
        str: isinstance(found, str),
    }
    if not right.get(kind, True):
        raise ValueError(f"{key}={_typed(found)} must be {_words(key, found, kind)}")
    if isinstance(found, int):
        check_plain(key, found)  # again: a number in quotes is a number by now
    if kind is str and controls(value):
        raise ValueError(f"{key}={shown(value)} holds control characters: leave them out")


def _typed(value: Any) -> str:
    return str(value) if isinstance(value, (int, float)) else shown(value)


def _words(key: str, value: Any, kind: Any) -> str:
    """What a value should be, with the way there."""
    if get_origin(kind) is list:
        given = json.dumps([value if isinstance(value, str) else str(value)], ensure_ascii=False)
        example = given if isinstance(value, (str, int, float)) and len(given) < 80 else '["..."]'
        return f"a list: write {key}='{example}'"
    if get_origin(kind) is dict:
        return f"keys and their values: write {key}.{'name' if key == 'router' else 'NAME'}=VALUE"
    if kind is int and isinstance(value, float) and value.is_integer() and abs(value) < LARGEST:
        return f"a whole number: write {int(value)}"
    return WORDS.get(kind, f"keys: {', '.join(hints_of(kind))}" if is_dataclass(kind) else str(kind))
