"""What one operator of torch costs: products by formula, everything else by the elements it reads and writes.

A FLOP of an operator that is no product is one element that it reads or writes. That is a price of moving memory, not
of arithmetic: about right for what adds, compares, copies, draws or looks up, an upper bound for what only writes, and
never 0. What is changed in place is read and written. Free is only what touches no data: views, allocations without
content, questions about shapes. Sorts and searches pay for their comparisons too, pools for their windows.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from duo.routing.products import Call, Formula, formula_of, guess_of, is_sparse, stored, tensors


class Rule(NamedTuple):
    """How an operator is counted."""

    price: Formula | None
    """FLOPs; None: it costs nothing."""
    is_product: bool = False
    """Whether they are those of a product."""
    inside: torch._C.DispatchKey | None = None
    """It is made of other operators, counted one by one: the key of the kernel that calls them."""


TOUCHES_NO_DATA = {
    "empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided", "_unsafe_view",
    "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "is_same_size", "_has_same_storage_numel", "is_pinned",
    "record_stream", "size", "sym_size", "stride", "sym_stride", "storage_offset", "sym_storage_offset", "numel",
    "sym_numel", "dim", "is_contiguous", "sym_is_contiguous", "is_strides_like_format",
    "is_non_overlapping_and_dense", "device", "layout",
}  # fmt: skip


@functools.cache
def rule_of(func: Any) -> Rule:
    """The rule of an operator."""
    namespace, _, name = func._schema.name.partition("::")
    ours = namespace in ("aten", "prim", "prims", "quantized")
    if ours and name in TOUCHES_NO_DATA:
        return Rule(None)
    if (formula := formula_of(func)) is not None:
        return Rule(formula, is_product=True)
    # before views: in inference mode `to`, `reshape` and `contiguous` come whole, which copy where they must
    if _has_kernel(func, torch._C.DispatchKey.CompositeImplicitAutograd):
        return Rule(None, inside=torch._C.DispatchKey.CompositeImplicitAutograd)
    if ours and _is_view(func):
        return Rule(None)
    guess = guess_of(func)
    price, inside = guess or SPECIAL.get(name, elements), None
    if not ours:  # another package's: what it calls counts too, and what it touches all the same, for it may be in C
        device = torch._C.DispatchKey.CUDA if torch.cuda.is_initialized() else torch._C.DispatchKey.CPU
        keys = (device, torch._C.DispatchKey.CompositeExplicitAutograd)
        inside = next((key for key in keys if _has_kernel(func, key)), None)
    return Rule(price, guess is not None, inside)


def _has_kernel(func: Any, key: torch._C.DispatchKey) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key)


def _is_view(func: Any) -> bool:
    """Whether an operator only makes another view, or turns one into another in place."""
    if (
        func._schema.name == "aten::lift_fresh"
    ):  # a view of what has just been written, from Python's or numpy's numbers
        return False
    given = [arg.alias_info for arg in func._schema.arguments if arg.alias_info is not None]
    returned = [part.alias_info for part in func._schema.returns]
    only_views = bool(given and returned) and all(returned) and not any(alias.is_write for alias in given)
    return only_views or torch.Tag.inplace_view in func.tags


def elements(call: Call) -> float:
    """Elements of all tensors given and returned; what returns nothing has written into what it was given."""
    _, args, kwargs, out = call
    read = _count(args)
    for name, value in kwargs.items():
        if name != "out":
            read += _count(value)
    return read + (read if out is None or isinstance(out, tuple) and not out else _count(out))


def _count(part: Any) -> int:
    """Elements of a tensor, or of all in a list; of a sparse one with its indices. Called for everything: quick."""
    if isinstance(part, Tensor):
        return part.numel() if part.layout is torch.strided else _count_stored(part)
    return sum(map(_count, part)) if isinstance(part, (list, tuple)) else 0


def _count_stored(x: Tensor) -> int:
    return stored(x) * (1 + x.dim()) if is_sparse(x) else x.numel()


def _look_up(call: Call) -> float:
    """Of its first argument it reads only what it returns."""
    return _count(call.args[1:]) + 2 * call.out.numel()


def _bag(call: Call) -> float:
    """Each index reads a row, and the rows of a bag are added up."""
    weight, indices = call.args[:2]
    return _count(call.args[1:]) + indices.numel() * weight.shape[-1] + call.out[0].numel()


def _comparisons(length: int) -> int:
    return math.ceil(math.log2(max(length, 2)))


def _sort(call: Call) -> float:
    x = call.args[0]
    return elements(call) + x.numel() * _comparisons(x.numel())


def _sort_rows(call: Call) -> float:
    x, axis = call.args[0], call.get("dim")
    return elements(call) + x.numel() * _comparisons(x.size(axis) if x.dim() else 1)


def _search(call: Call) -> float:
    row = call.get("sorted_sequence", "boundaries")
    return elements(call) + _count(call.out) * _comparisons(row.shape[-1])


def _pool(call: Call) -> float:
    """Each result reads its window."""
    results, window = next(tensors([call.out])).numel(), call.get("kernel_size")
    return elements(call) + results * math.prod(window if len(window) > 1 else window * (call.args[0].dim() - 2))


SPECIAL: dict[str, Formula] = (
    dict.fromkeys(("index", "_unsafe_index", "index_select", "gather", "take", "embedding"), _look_up)
    | dict.fromkeys(("_embedding_bag", "_embedding_bag_forward_only"), _bag)
    | dict.fromkeys(("sort", "argsort", "topk", "kthvalue", "mode"), _sort_rows)
    | dict.fromkeys(("median", "nanmedian", "_unique", "_unique2", "unique_dim", "unique_consecutive"), _sort)
    | dict.fromkeys(("searchsorted", "bucketize"), _search)
    | dict.fromkeys(("avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices"), _pool)
)
