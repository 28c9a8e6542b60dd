"""The source that a plugin consists of, as a digest: a router that was changed is trained anew."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from importlib.util import find_spec, resolve_name
from pathlib import Path

NOT_OURS = {"abc", "builtins", "duo", "torch", "typing"}  # parents whose source a router does not consist of


def source_digest(kind: type) -> str:
    """SHA-256 of a class's source: of its module and its parents', and of what they import from their own packages."""
    return module_digest(
        *(base.__module__ for base in kind.__mro__ if base.__module__.partition(".")[0] not in NOT_OURS)
    )


def module_digest(*names: str) -> str:
    """SHA-256 of modules' source, and of whatever they import from their own top-level packages."""
    packages = {name.partition(".")[0] for name in names}
    texts: dict[str, str] = {}
    left = [*names]
    while left:
        name = left.pop()
        spec = find_spec(name) if name not in texts else None
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            continue
        texts[name] = Path(spec.origin).read_text()
        inside = name if spec.submodule_search_locations else name.rpartition(".")[0]
        parents = [name.rpartition(".")[0]] if "." in name else []
        found = [*parents, *_imported(texts[name], inside)]
        left += [other for other in found if other.partition(".")[0] in packages]
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
