"""Patterns as a tree of their common beginnings."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Level(NamedTuple):
    """The nodes of one depth, in the order of their parents; kept on the CPU."""

    parent_J: Tensor
    """Node of the depth above."""
    module_J: Tensor
    """Module that leads from there to this node."""
    child_start: list[int]
    """Where the children of each node of the depth above begin here; one more at the end."""


class Trie(NamedTuple):
    """Patterns as a tree whose nodes are their common beginnings; leaf p stands for pattern `leaf_P[p]`."""

    levels: list[Level]
    leaf_P: Tensor

    @classmethod
    def of(cls, pattern_PL: Tensor) -> Trie:
        """The tree of patterns that are all different."""
        order_P = torch.arange(len(pattern_PL))
        for layer in reversed(range(pattern_PL.shape[1])):
            order_P = order_P[pattern_PL[order_P, layer].argsort(stable=True)]
        sorted_PL, levels = pattern_PL[order_P], []
        differs_P = torch.zeros(len(order_P), dtype=torch.bool)
        node_P = torch.zeros(len(order_P), dtype=torch.int64)
        for layer in range(sorted_PL.shape[1]):
            differs_P[1:] |= sorted_PL[1:, layer] != sorted_PL[:-1, layer]
            first_J = torch.cat((torch.zeros(1, dtype=torch.int64), differs_P.nonzero().squeeze(1)))
            parent_J = node_P[first_J]
            starts = torch.searchsorted(parent_J, torch.arange(int(parent_J[-1]) + 2))
            levels.append(Level(parent_J, sorted_PL[first_J, layer], starts.tolist()))
            node_P = differs_P.cumsum(0)
        return cls(levels, order_P)
