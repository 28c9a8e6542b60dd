"""One walk over the tree of patterns: a beginning that patterns share is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from duo.backbone import Backbone, Run
from duo.backbone.block import Attention, Places
from duo.search.trie import Trie

Attend = Callable[[Attention, int, Tensor], Tensor]
"""attend(attention, layer, x_JBSD) -> what the tokens of J nodes draw from earlier tokens and themselves."""

Leaf = Callable[[Tensor, Tensor], None]
"""leaf(pattern_J, x_JBSD): takes the last layer's stream of some patterns."""


class Spent(NamedTuple):
    """What a walk computed, each on all tokens of the step."""

    layers: int = 0
    attended: int = 0
    small: int = 0
    big: int = 0
    leaves: int = 0

    def __add__(self, other: tuple[int, ...]) -> Spent:  # type: ignore[override]
        return Spent(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))


def same(places: Places) -> Attend:
    """Context `same`: earlier tokens follow the candidate itself."""

    def attend(attention: Attention, layer: int, x_JBSD: Tensor) -> Tensor:
        nodes, flat = len(x_JBSD), x_JBSD.flatten(0, 1)
        here = places.repeat(nodes)
        return attention.attend(flat, *attention.keys_values(flat, here), here).view_as(x_JBSD)

    return attend


def shared(places: Places, context: Run | None) -> Attend:
    """Contexts `reference` and `committed`: earlier tokens are a run's; a candidate brings only its own key and value.

    The run's keys and values serve all nodes at once, as one matrix product.
    """

    def attend(attention: Attention, layer: int, x_JBSD: Tensor) -> Tensor:
        nodes, flat = len(x_JBSD), x_JBSD.flatten(0, 1)
        here = places.repeat(nodes)
        key, value = (
            rearrange(part, "(j b) g s k -> b g j 1 s k", j=nodes) for part in attention.keys_values(flat, here)
        )
        query = attention.heads(attention.query(flat), here.rotation_BSR)
        query = rearrange(query, "(j b) (g r) s k -> b g j r s k", j=nodes, g=key.shape[1]) * attention.head_width**-0.5
        score = (query * key).sum(-1, keepdim=True)
        if context is None:
            mixed = value.expand_as(query)
        else:
            past_key, past_value = context.keys_values[layer]
            past = query.flatten(2, 4) @ past_key.transpose(-1, -2)
            past = past.view(*query.shape[:-1], -1)
            if places.mask_BSU is not None:
                past = past.masked_fill(~places.mask_BSU[:, None, None, None, :, : past.shape[-1]], -torch.inf)
            weight = torch.cat((past, score), dim=-1).softmax(dim=-1)
            mixed = (weight[..., :-1].flatten(2, 4) @ past_value).view_as(query) + weight[..., -1:] * value
        return attention.output(rearrange(mixed, "b g j r s k -> j b s (g r k)"))

    return attend


@torch.no_grad()
def walk(backbone: Backbone, trie: Trie, x_BSD: Tensor, attend: Attend, chunk: int, leaf: Leaf) -> Spent:
    """Gives the last layer's stream of every pattern to `leaf`, computing at most `chunk` nodes at once.

    Depth first, so that what is held does not grow with the number of patterns.
    """

    def visit(depth: int, first: int, x_JBSD: Tensor) -> Spent:
        if depth == len(trie.levels):
            leaf(trie.leaf_P[first : first + len(x_JBSD)], x_JBSD)
            return Spent(leaves=len(x_JBSD))
        spent = Spent()
        for at in range(0, len(x_JBSD), chunk):
            start, children_JBSD, cost = _children(backbone, trie, depth, first + at, x_JBSD[at : at + chunk], attend)
            spent += cost
            spent += visit(depth + 1, start, children_JBSD)
        return spent

    return visit(0, 0, x_BSD[None])


def _children(
    backbone: Backbone, trie: Trie, depth: int, first: int, x_JBSD: Tensor, attend: Attend
) -> tuple[int, Tensor, Spent]:
    """The children of consecutive nodes: the first one's index, their streams, and what they cost."""
    block, level, nodes = backbone.block(depth), trie.levels[depth], len(x_JBSD)
    start, end = level.child_start[first], level.child_start[first + nodes]
    parent_J, module_J = (level.parent_J[start:end] - first).to(x_JBSD.device), level.module_J[start:end]
    attends = not (block.block_scope and bool((module_J == 0).all()))
    h_JBSD = x_JBSD + attend(block.attention, depth, block.attention_norm(x_JBSD)) if attends else x_JBSD
    normed_JBSD = block.ffn_norm(h_JBSD)
    y_JBSD = h_JBSD.index_select(0, parent_J)
    for module, child_I in _by_module(module_J, x_JBSD.device):
        if module == 0:
            if block.block_scope:
                y_JBSD.index_copy_(0, child_I, x_JBSD.index_select(0, parent_J[child_I]))
            continue
        ffn = block.ffn.small if module == 1 else block.ffn.big
        part_IBSD = normed_JBSD if len(child_I) == nodes else normed_JBSD.index_select(0, parent_J[child_I])
        y_JBSD.index_add_(0, child_I, ffn(part_IBSD))
    few, many = (int((module_J == module).sum()) for module in (1, 2))
    return start, y_JBSD, Spent(end - start, nodes if attends else 0, few, many)


def _by_module(module_J: Tensor, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Each module that occurs, and the children it leads to."""
    for module in module_J.unique().tolist():
        yield module, (module_J == module).nonzero().squeeze(1).to(device)
