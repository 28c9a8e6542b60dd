"""One walk over the tree of patterns: a beginning that patterns share is computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from duo.backbone import BIG, MODULES, SKIP, SMALL, Backbone, Run
from duo.backbone.attention import Attention, Places
from duo.backbone.block import DuoFFN
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
        query = attention.queries(flat, here)
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


@dataclass
class Children:
    """The tokens of a tree's nodes in one layer: the J nodes attend, then each of their I children takes its module.

    A child that takes none of the three is left with the stream after attention.
    """

    attend: Attend
    layer: int
    parent_I: Tensor
    child_MR: list[Tensor]  # of each module, the children that take it
    attended: int = 0  # nodes that attended, known once the layer is computed

    @classmethod
    def of(cls, attend: Attend, layer: int, parent_I: Tensor, module_I: Tensor) -> Children:
        """Children of the nodes `parent_I`; the indices may stay on the CPU."""
        child_MR = [(module_I == module).nonzero().squeeze(1) for module in range(len(MODULES))]
        return cls(attend, layer, parent_I, child_MR)

    @property
    def spent(self) -> Spent:
        """What the layer computed, on the tokens of each node."""
        return Spent(len(self.parent_I), self.attended, len(self.child_MR[SMALL]), len(self.child_MR[BIG]))

    def look(self, attention: Attention, x_JXD: Tensor) -> Tensor:
        """Computes nothing yet: only the nodes themselves attend to their keys and values."""
        return x_JXD

    def draw(self, attention: Attention, x_JXD: Tensor) -> Tensor:
        """What the nodes draw."""
        self.attended = len(x_JXD)
        return self.attend(attention, self.layer, x_JXD)

    def choose(self, x_JXD: Tensor) -> None:
        """Nothing to do: the tree has chosen."""

    def keep(self, attention: Attention, x_JXD: Tensor) -> Tensor:
        """What all nodes draw if any child needs it; the children that skip take the stream before it (`feed`)."""
        all_skip = len(self.child_MR[SKIP]) == len(self.parent_I)
        # a number has no device: it may be added to any stream
        return torch.zeros(()) if all_skip else self.draw(attention, x_JXD)

    def feed(self, ffn: DuoFFN, x_JXD: Tensor, h_JXD: Tensor, skipped_JXD: Tensor) -> Tensor:
        """The children's streams; those of one module share its matrix products."""
        device = h_JXD.device
        y_IXD = h_JXD.index_select(0, self.parent_I.to(device))
        for module in (SMALL, BIG):
            child_R = self.child_MR[module]
            if len(child_R):
                y_IXD.index_add_(0, child_R.to(device), ffn.of(module)(_select(x_JXD, self.parent_I[child_R])))
        child_R = self.child_MR[SKIP]
        if skipped_JXD is not h_JXD and len(child_R):  # otherwise they have it already
            y_IXD.index_copy_(0, child_R.to(device), _select(skipped_JXD, self.parent_I[child_R]))
        return y_IXD


def _select(x_JXD: Tensor, index_R: Tensor) -> Tensor:
    """The nodes of an index; not copied where they are all nodes in order, as under a module that all may take."""
    if len(index_R) == len(x_JXD) and torch.equal(index_R, torch.arange(len(x_JXD), device=index_R.device)):
        return x_JXD
    return x_JXD.index_select(0, index_R.to(x_JXD.device))


def run_pinned(backbone: Backbone, depth: int, x_JBSD: Tensor, attend: Attend) -> tuple[Tensor, Spent]:
    """Runs the pinned layers that lie in front of the routed layer `depth` (behind the last, where there is none)."""
    ends = [-1, *backbone.routed, backbone.config.layers]
    spent, every_J = Spent(), torch.arange(len(x_JBSD))
    for layer in range(ends[depth] + 1, ends[depth + 1]):
        nodes = Children.of(attend, layer, every_J, torch.full_like(every_J, BIG))
        x_JBSD = backbone.block(layer).layer(x_JBSD, nodes)
        spent += nodes.spent
    return x_JBSD, spent


@torch.no_grad()
def walk(backbone: Backbone, trie: Trie, x_BSD: Tensor, attend: Attend, chunk: int, leaf: Leaf) -> Spent:
    """Gives the last layer's stream of every pattern to `leaf`, computing at most `chunk` nodes at once.

    Depth first, so that what is held does not grow with the number of patterns.
    """

    def visit(depth: int, first: int, x_JBSD: Tensor) -> Spent:
        if depth == len(trie.levels):
            x_JBSD, passed = run_pinned(backbone, depth, x_JBSD, attend)
            leaf(trie.leaf_P[first : first + len(x_JBSD)], x_JBSD)
            return passed + Spent(leaves=len(x_JBSD))
        spent, level, layer = Spent(), trie.levels[depth], backbone.routed[depth]
        for at, part_JBSD in enumerate(x_JBSD.split(chunk)):
            part_JBSD, passed = run_pinned(backbone, depth, part_JBSD, attend)
            # children of consecutive nodes are consecutive, so that a slice of the level holds them all
            node = first + at * chunk
            start, end = level.child_start[node], level.child_start[node + len(part_JBSD)]
            children = Children.of(attend, layer, level.parent_J[start:end] - node, level.module_J[start:end])
            y_IBSD = backbone.block(layer).layer(part_JBSD, children)
            spent += passed + children.spent
            spent += visit(depth + 1, start, y_IBSD)
        return spent

    return visit(0, 0, x_BSD[None])
