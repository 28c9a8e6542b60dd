"""How much a router has to hold: its parameters, buffers, and whatever else it keeps, wherever it keeps it."""

from __future__ import annotations

import array
import contextlib
import gc
import logging
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Set, ValuesView
from types import CodeType, FrameType, FunctionType, ModuleType
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

    Other `models` that it runs are part of it. Found are tensors, numpy arrays, bytes and plain numbers: in whatever
    the router's objects hold, in closures, defaults, caches and long constants of their functions, in scripted
    modules, on the router's classes, in the Python files these stand in, and in modules of their package named there.
    """
    owned = {_held(part)[0] for weight in (*backbone.parameters(), *backbone.buffers()) for part in _dense(weight)}
    storages: dict[Any, tuple[int, int]] = {}
    plain = 0
    for part in _walk([router, *models, *_of_classes(type(router))]):
        if isinstance(part, (bool, int, float, complex, str)):
            plain += _count_plain(part)
            continue
        for dense in _dense(part) if isinstance(part, Tensor) else [part]:
            key, *held = _held(dense)
            if key not in owned:
                storages[key] = held[0], held[1]
    plain = plain if plain > OPTIONS else 0
    numbers, sizes = (sum(column) for column in zip((0, 0), *storages.values(), strict=True))
    return Size(numbers + plain, sizes + plain * PLAIN_BYTES)


def _count_plain(one: bool | int | float | complex | str) -> int:
    """How many numbers of 64 bits, or letters; of a whole number that is a table in disguise, as many as it fills."""
    if isinstance(one, str):
        return len(one)
    return max(one.bit_length() // 64, 1) if isinstance(one, int) else 1


def _of_classes(kind: type) -> Iterator[Any]:
    """What stands on a router's classes, beside them in their files, and in modules of their packages named there."""
    for base in kind.__mro__:
        package = _package(base.__module__)
        if package in ("duo", "torch", "builtins", "abc"):
            continue
        yield from (value for name, value in vars(base).items() if not name.startswith("__"))
        file = sys.modules.get(base.__module__, ModuleType(""))
        yield from _of_file(file)
        for module in vars(file).values():
            if isinstance(module, ModuleType) and _package(module.__name__) == package:
                yield from _of_file(module)


def _of_file(module: ModuleType) -> Iterator[Any]:
    """Data that stands in a Python file, and objects of its own package's or torch's modules."""
    data = (Tensor, nn.Module, np.ndarray, array.array, bytes, bytearray, Mapping, Set, list, tuple)
    package = _package(module.__name__)
    for name, value in vars(module).items():
        ours = _package(type(value).__module__) == package and not isinstance(value, type)
        if not name.startswith("__") and (ours or isinstance(value, data)):
            yield value


def _package(module: str) -> str:
    return module.partition(".")[0]


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
        if isinstance(one, np.ndarray) and isinstance(one.base, (np.ndarray, Tensor)):
            stack.append(one.base)  # a view: what it keeps alive is the whole
            continue
        if isinstance(one, (Tensor, array.array, bytes, bytearray)) or _is_numbers(one):
            yield one
        stack.extend(_parts(one))


def _is_numbers(one: Any) -> bool:
    return isinstance(one, np.ndarray) and not one.dtype.hasobject


def _parts(one: Any) -> list[Any]:
    """What an object holds directly."""
    if isinstance(one, Mapping):
        return [*one.keys(), *one.values()]
    if isinstance(one, FunctionType):
        defaults = *(one.__defaults__ or ()), *(one.__kwdefaults__ or {}).values()
        return [*(one.__closure__ or ()), *defaults, one.__code__]
    if isinstance(one, CodeType):
        return [constant for constant in one.co_consts if isinstance(constant, CodeType) or _is_long(constant)]
    if isinstance(one, np.ndarray):
        return one.ravel().tolist() if one.dtype.hasobject else []
    if isinstance(one, memoryview):
        return [one.obj]
    if isinstance(one, torch.UntypedStorage):
        return [torch.empty(0, dtype=torch.uint8).set_(one)]
    if isinstance(one, (torch.ScriptObject, torch.jit.ScriptFunction, torch.jit.ScriptModule)):
        return _scripted(one)
    if isinstance(one, property):  # and not what it says of itself
        return [one.fget, one.fset, one.fdel]
    if isinstance(one, (list, tuple, Set, ValuesView, deque)):
        return [*one]
    if isinstance(one, OPAQUE):
        return []
    attributes = getattr(one, "__dict__", {})
    named = [value for name, value in attributes.items() if name not in SAID]
    if isinstance(one, Tensor):
        return named
    told = {id(attributes), *map(id, attributes.values())}
    # what Python's collector sees: slots, caches, cells, partials, methods, iterators
    return named + [held for held in gc.get_referents(one) if id(held) not in told]


OPAQUE = (type, ModuleType, FrameType, logging.Logger, bytes, bytearray, array.array)
"""What is no state of a router's, or holds no objects."""
SAID = {"__annotations__", "__doc__", "__module__", "__name__", "__qualname__"}
"""Attributes that say what a function is."""


def _is_long(constant: Any) -> bool:
    """Whether a constant of a function is a table, and no option, name or message."""
    return isinstance(constant, (str, bytes, tuple, frozenset)) and len(constant) > OPTIONS


def _scripted(one: Any) -> list[Any]:
    """Weights and constants of what TorchScript runs, which Python does not hold."""
    found: list[Any] = []
    with contextlib.suppress(RuntimeError):  # not every object can be packed, and not every module has a `forward`
        if isinstance(one, torch.ScriptObject) and hasattr(one, "__getstate__"):
            found.append(one.__getstate__())
        if isinstance(one, torch.jit.ScriptFunction):
            graph: Any = one.graph  # kept: its nodes are its own
            named = [node for node in graph.findAllNodes("prim::Constant") if node.hasAttribute("value")]
            found += [node.t("value") for node in named if node.kindOf("value") == "t"]
        if isinstance(one, torch.jit.ScriptModule):
            found += [*one.parameters(), *one.buffers()]
            found.append(one.code_with_constants[1].const_mapping)
    return found


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
