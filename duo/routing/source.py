"""What of a plugin runs, as a digest: a router that was changed is trained anew, one that was tidied up is not."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

# changes of duo itself are told by the FORMAT numbers
NOT_OURS = {"abc", "builtins", "duo", "torch", "typing"}  # parents whose source a router does not consist of
SAYS_NOTHING = {"annotation", "returns", "kind"}  # fields of syntax trees; `kind` is the u of u"text"
KEEPS_FIELDS = {"dataclass", "NamedTuple", "Struct", "TypedDict"}  # decorators and parents that read annotations


def source_digest(kind: type) -> str:
    """SHA-256 of what runs of a class: of its module and its parents', and of what they import from their packages."""
    return module_digest(
        *(base.__module__ for base in kind.__mro__ if base.__module__.partition(".")[0] not in NOT_OURS)
    )


def module_digest(*names: str) -> str:
    """SHA-256 of what runs of modules, and of whatever they import, wherever in them, from their top-level packages.

    Comments, docstrings, annotations and formatting do not count. A package's `__init__` counts where something is
    taken from the package itself, not where it is merely on the way to one of its modules.
    """
    packages = {name.partition(".")[0] for name in names}
    trees: dict[str, Any] = {}
    left = [*names]
    while left:
        name = left.pop()
        spec = _spec(name)
        if name in trees or spec is None or not spec.origin or not spec.origin.endswith(".py"):
            continue
        trees[name], imported = _read(Path(spec.origin).read_bytes(), spec.parent or "")
        left += [_module(used) for used in imported if used.partition(".")[0] in packages]
    return hashlib.sha256(json.dumps(trees, sort_keys=True).encode()).hexdigest()


@functools.cache
def _read(text: bytes, package: str) -> tuple[Any, list[str]]:
    """A module's syntax tree as plain data, and what it imports; kept, for a run asks once a row."""
    tree = _Running().visit(ast.parse(text))
    return _plain(tree), [*_used(tree, package)]


class _Running(ast.NodeTransformer):
    """Leaves of a syntax tree what runs."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for name in SAYS_NOTHING.intersection(node._fields):
            setattr(node, name, None)
        return super().generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:  # a docstring, or `...`
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Pass(self, node: ast.Pass) -> None:  # so that a docstring may replace it
        return None

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        # with a value it runs as without the annotation; alone it does nothing
        return self.generic_visit(ast.Assign([node.target], node.value)) if node.value else None

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        return node.orelse if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING") else node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        above = [ast.unparse(part).partition("(")[0].rpartition(".")[2] for part in node.decorator_list + node.bases]
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        if KEEPS_FIELDS.intersection(above):  # there a bare annotation is an argument of the constructor
            names = [ast.unparse(field.target) for field in fields if "ClassVar" not in ast.unparse(field.annotation)]
            node.keywords.append(ast.keyword("fields", ast.Constant(" ".join(names))))
        return self.generic_visit(node)


def _plain(tree: Any) -> Any:
    """A syntax tree as plain data, without places, and without empty fields: versions of Python differ in them."""
    if isinstance(tree, list):
        return [_plain(part) for part in tree]
    if not isinstance(tree, ast.AST):
        return ascii(tree)  # constants may be bytes or complex, which JSON lacks
    fields = {name: _plain(part) for name, part in ast.iter_fields(tree) if part is not None and part != []}
    return [type(tree).__name__, fields]


def _used(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names of what code inside a package imports, and of what it reaches through modules (`a.b.function`)."""
    nodes = [*ast.walk(tree)]
    imported = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    yield from imported
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            name = resolve_name("." * node.level + (node.module or ""), package) if node.level else str(node.module)
            yield from (f"{name}.{alias.name}" for alias in node.names)
    beginnings = {node.value for node in nodes if isinstance(node, ast.Attribute)}
    chains = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute) and node not in beginnings]
    roots = {name.partition(".")[0] for name in imported}
    yield from (chain for chain in chains if chain.partition(".")[0] in roots)


def _module(used: str) -> str:
    """The longest beginning of a dotted name that is a module; empty: there is none."""
    while used and _spec(used) is None:
        used = used.rpartition(".")[0]
    return used


def _spec(name: str) -> ModuleSpec | None:
    """Where a module is; imports nothing."""
    above, _, _ = name.rpartition(".")
    if not above:
        return find_spec(name) if name else None  # of a dotted name it would import the parents
    package = _spec(above)
    places = package.submodule_search_locations if package else None
    return PathFinder.find_spec(name, places) if places is not None else None
