"""How much a router has to hold: its parameters, buffers, and whatever else it keeps, wherever it keeps it."""

from __future__ import annotations

import array
import functools
import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from duo.backbone import Backbone
from duo.routing.products import is_sparse

OPTIONS = 1000  # numbers and letters that may stand in Python's own lists: options are no table
PLAIN_BYTES = 8  # of one of Python's numbers


class Size(NamedTuple):
    """What a deployment would hold beside the backbone."""

    numbers: int
    """Numbers in tensors, arrays and Python's own containers."""
    bytes: int
    """What they take."""


def size_of(router: nn.Module, backbone: Backbone, models: Iterable[Backbone] = ()) -> Size:
    """The router's parameters, buffers and other state: every storage once, none that is the backbone's own.

    Other `models` that it runs are part of it. Found are tensors, numpy arrays, bytes and plain numbers: in attributes
    of modules and other objects, in lists, tuples, sets and dictionaries, in closures, on the router's classes and in
    the Python files these stand in.
    """
    owned = {_held(part)[0] for weight in (*backbone.parameters(), *backbone.buffers()) for part in _dense(weight)}
    storages: dict[Any, tuple[int, int]] = {}
    plain = 0
    for part in _walk([router, *models, *_of_classes(type(router))]):
        if isinstance(part, (bool, int, float, complex, str)):
            plain += len(part) if isinstance(part, str) else 1
            continue
        for dense in _dense(part) if isinstance(part, Tensor) else [part]:
            key, *held = _held(dense)
            if key not in owned:
                storages[key] = held[0], held[1]
    plain = plain if plain > OPTIONS else 0
    numbers, sizes = (sum(column) for column in zip((0, 0), *storages.values(), strict=True))
    return Size(numbers + plain, sizes + plain * PLAIN_BYTES)


def _of_classes(kind: type) -> Iterator[Any]:
    """What stands on a router's classes, and beside them in their files."""
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in ("duo", "torch", "builtins", "abc"):
            continue
        yield from (value for name, value in vars(base).items() if not name.startswith("__"))
        beside = vars(sys.modules.get(base.__module__, ModuleType(""))).items()
        data = (Tensor, np.ndarray, array.array, bytes, bytearray, Mapping, Set, list, tuple)
        yield from (value for name, value in beside if isinstance(value, data) and not name.startswith("__"))


def _walk(roots: list[Any]) -> Iterator[Any]:
    """All tensors, arrays, bytes, numbers and texts that can be reached."""
    stack = list(roots)
    seen: dict[int, Any] = {}
    while stack:
        one = stack.pop()
        if isinstance(one, (bool, int, float, complex, str)):
            yield one
            continue
        if one is None or id(one) in seen:
            continue
        seen[id(one)] = one  # kept, so that no other object gets its id
        if isinstance(one, (Tensor, np.ndarray, array.array, bytes, bytearray)):
            yield one
        stack.extend(_parts(one))


def _parts(one: Any) -> list[Any]:
    """What an object holds directly."""
    if isinstance(one, Mapping):
        return [*one.keys(), *one.values()]
    if isinstance(one, (list, tuple, Set)) or type(one).__name__ == "deque":
        return [*one]
    if isinstance(one, functools.partial):
        return [one.func, *one.args, *one.keywords.values()]
    if isinstance(one, MethodType):
        return [one.__self__, one.__func__]
    if isinstance(one, FunctionType):
        return [*(one.__closure__ or ()), *(one.__defaults__ or ()), *(one.__kwdefaults__ or {}).values()]
    if isinstance(one, CellType):
        return [one.cell_contents] if _is_filled(one) else []
    if isinstance(one, torch.ScriptObject):
        return [one.__getstate__()] if hasattr(one, "__getstate__") else []
    if isinstance(one, (type, ModuleType)) or not hasattr(one, "__dict__"):
        return []
    return [*vars(one).values()]


def _is_filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _dense(x: Tensor) -> list[Tensor]:
    if x.layout == torch.sparse_coo:
        return [x._values(), x._indices()]
    return [x.values()] if is_sparse(x) else [x]


def _held(one: Any) -> tuple[Any, int, int]:
    """Which memory it is, the numbers it has room for, and its bytes."""
    if isinstance(one, np.ndarray):
        return id(one), one.size, one.nbytes
    if not isinstance(one, Tensor):
        view = memoryview(one)
        return id(one), view.nbytes // view.itemsize, view.nbytes
    if one.layout != torch.strided or one.is_meta:
        return id(one), one.numel(), one.numel() * one.element_size()
    storage = one.untyped_storage()
    return (storage.data_ptr(), one.device), storage.nbytes() // one.element_size(), storage.nbytes()
