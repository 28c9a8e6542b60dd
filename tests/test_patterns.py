"""The tree that patterns with common beginnings make."""

import pytest
import torch

from duo.search import all_patterns
from duo.search.trie import Trie


@pytest.mark.parametrize("modules", [(1, 2), (0, 1, 2)])
def test_the_tree_shares_every_common_beginning(modules):
    pattern_PL = all_patterns(4, modules)[torch.randperm(len(modules) ** 4, generator=torch.Generator().manual_seed(0))]
    pattern_PL = pattern_PL[: len(pattern_PL) // 2]
    trie = Trie.of(pattern_PL)
    for depth, level in enumerate(trie.levels, 1):
        assert len(level.parent_J) == len({tuple(pattern[:depth]) for pattern in pattern_PL.tolist()})
    rebuilt = []
    for leaf in range(len(pattern_PL)):
        node, modules_back = leaf, []
        for level in reversed(trie.levels):
            modules_back.append(int(level.module_J[node]))
            node = int(level.parent_J[node])
        rebuilt.append(modules_back[::-1])
    assert torch.equal(torch.tensor(rebuilt), pattern_PL[trie.leaf_P])
