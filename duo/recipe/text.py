"""YAML as plain values: what is text stays what was written, and whatever cannot be meant is refused on one line."""

from __future__ import annotations

import re
from typing import Any, get_origin

import yaml

from duo.recipe.kinds import DEEPEST, check_name, check_plain, hint_of, required, shown

MOST_VALUES = 100_000  # a few aliases of aliases can stand for more than any memory holds
TAG = "tag:yaml.org,2002:"
PLAIN = {TAG + name for name in ("str", "int", "float", "bool", "null", "merge")}


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.1, but 6e-3 is a number as it is elsewhere, and dates and `=` are text."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in (TAG + "timestamp", TAG + "value")]
    for first, known in Loader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    TAG + "float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_text(text: str, owner: type) -> dict[str, Any]:
    """The keys and values of a YAML document.

    Args:
        owner: the config dataclass whose settings they are: it says which of them are text.

    Raises:
        ValueError: it is no YAML, holds no keys, or what no recipe can mean.
    """
    node = _compose(text)
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("it must hold keys and values, as in seed: 1")
    return _Reader(owner).mapping(node, (), 0)


def read_value(key: str, path: tuple[str, ...], text: str, owner: type) -> Any:
    """The value of a setting as typed behind `key=`.

    Where the setting is text it is what was typed, but for YAML's quotes and, where there may be no value, `null`.

    Raises:
        ValueError: nothing was typed, or it is no YAML.
    """
    hint, optional = required(hint_of(owner, path))
    try:
        node = _compose(text)
    except ValueError as error:
        if hint is str:
            return text
        way = "quote the value" + (f", as in {key}='[\"*.txt\"]'" if get_origin(hint) is list else "")
        raise ValueError(f"{shown(f'{key}={text}')} cannot be read as YAML: {way} ({error})") from error
    if not text.strip() or (node is None and hint is not str):
        raise ValueError(f"{key}= has no value: write {key}=null for none, or {key}='\"\"' for an empty text")
    if hint is str:
        if isinstance(node, yaml.ScalarNode) and node.style in ("'", '"'):
            return node.value
        return None if optional and text.strip() in ("null", "Null", "NULL") else text
    return _Reader(owner).value(node, path, len(path))


def _compose(text: str) -> Any:
    """The nodes of YAML's only document; None where it is empty."""
    try:
        depth = 0
        for event in yaml.parse(text, Loader):  # before nodes are made: that goes as deep as the document
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"it holds more than {DEEPEST} keys or lists inside one another")
        return yaml.compose(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except UnicodeEncodeError as error:
        raise ValueError("it is no UTF-8") from error


class _Reader:
    """Makes plain values of nodes; counts them, for aliases make many of few."""

    def __init__(self, owner: type) -> None:
        self._owner, self._left, self._loader = owner, MOST_VALUES, Loader("")

    def value(self, node: Any, path: tuple[str, ...], depth: int) -> Any:
        """The value of any node."""
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, depth)
        self._count(node, path, depth, "seq")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(part, (*path, str(index)), depth + 1) for index, part in enumerate(node.value)]
        return self._scalar(node, path)

    def mapping(self, node: Any, path: tuple[str, ...], depth: int) -> dict[Any, Any]:
        """Keys and values, over those of other mappings that `<<` names."""
        self._count(node, path, depth, "map")
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        for key, value in node.value:
            if key.tag == TAG + "merge":
                for part in reversed(value.value if isinstance(value, yaml.SequenceNode) else [value]):
                    if not isinstance(part, yaml.MappingNode):
                        raise ValueError(f"{_name(path)}: << must name keys and values")
                    merged |= self.mapping(part, path, depth + 1)
                continue
            name = self._key(key, path)
            if name in own:
                raise ValueError(f"{_name((*path, str(name)))} is there twice: found duplicate key")
            own[name] = self.value(value, (*path, str(name)), depth + 1)
        if len({type(name) for name in merged | own}) > 1:
            raise ValueError(f"{_name(path)} has words and numbers as keys: put the numbers in quotes")
        return merged | own

    def _key(self, node: Any, path: tuple[str, ...]) -> str | int:
        if not isinstance(node, yaml.ScalarNode):
            raise ValueError(f"{_name(path)}: a key must be a word, not a list or keys")
        # names are text (`on`, `1`), but for keys that only a router knows, which may take numbers
        typed = node.tag == TAG + "int" and hint_of(self._owner, path) is Any
        name: str | int = self._scalar(node, (*path, node.value)) if typed else node.value
        check_name(_name(path), name)
        return name

    def _scalar(self, node: Any, path: tuple[str, ...]) -> Any:
        hint, optional = required(hint_of(self._owner, path))
        if hint is str and not node.style and node.tag in PLAIN:
            value = None if node.tag == TAG + "null" and (optional or not node.value) else node.value
        elif node.tag in (TAG + "str", TAG + "merge"):
            value = node.value
        elif node.tag in PLAIN:
            try:
                value = self._loader.construct_object(node)
            except (ValueError, LookupError) as error:  # a tag that says another kind, or thousands of digits
                raise ValueError(f"{_name(path)}={shown(node.value)} is no {node.tag.removeprefix(TAG)}") from error
            _check_base(_name(path), node.value, value)
        else:
            raise ValueError(f"{_name(path)} has the tag {shown(node.tag)}: write text, a number, true, false or null")
        check_plain(_name(path), value)
        return value

    def _count(self, node: Any, path: tuple[str, ...], depth: int, kind: str) -> None:
        self._left -= 1
        if self._left < 0 or depth > DEEPEST:
            raise ValueError(
                f"it holds more than {MOST_VALUES:,} values, or {DEEPEST} inside one another (by aliases?)"
            )
        if not isinstance(node, yaml.ScalarNode) and node.tag != TAG + kind:
            raise ValueError(f"{_name(path)} has the tag {shown(node.tag)}: leave it out")


def _check_base(key: str, text: str, value: Any) -> None:
    """Raises ValueError for a number that YAML 1.1 does not count in tens: 0123 is 83 to it, and 1:30 is 90."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and (":" in text or (re.fullmatch("[-+]?0[0-7_]+", text) and float(text) != value)):
        raise ValueError(f"{key}={shown(text)} is {value} to YAML: write {value}, or the number that is meant")


def _name(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the recipe"
