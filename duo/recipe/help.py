"""What can be set: every setting with its default and its sentence, read from the config dataclasses themselves."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from duo.backbone.budget import Budget
from duo.recipe.schema import Recipe


def settings(owner: type = Recipe, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """(key, default, sentence) of every setting."""
    sentences, hints = sentences_of(owner), get_type_hints(owner)
    default = owner() if owner is not Budget else Budget(6)
    for part in fields(owner):
        if is_dataclass(hints[part.name]):
            yield from settings(hints[part.name], f"{prefix}{part.name}.")
        else:
            yield prefix + part.name, getattr(default, part.name), sentences[part.name]


def summary(path: Path) -> str:
    """A recipe's first line, a comment that says what it is."""
    return path.read_text().partition("\n")[0].removeprefix("#").strip()


def sentences_of(owner: type) -> dict[str, str]:
    """The docstring below each field of a dataclass or struct and its bases."""
    found: dict[str, str] = {}
    ours = [part for part in owner.__mro__ if part.__module__.partition(".")[0] == "duo"]
    for part in reversed(ours):  # bases first: a subclass may say it better
        # from the source: Python keeps no docstrings of fields
        body = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0].body  # type: ignore[attr-defined]
        for before, after in zip(body, body[1:], strict=False):
            if (
                isinstance(before, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[before.target.id] = str(after.value.value)  # type: ignore[union-attr]
    return found
