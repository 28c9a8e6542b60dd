"""What candidates predict together."""

from __future__ import annotations

import torch
from torch import Tensor

from duo.backbone import Backbone
from duo.progress import count
from duo.search.exact import STATE_BYTES
from duo.search.trie import Trie
from duo.search.values import logits
from duo.search.walk import Spent, same, walk


@torch.no_grad()
def mean_prediction(backbone: Backbone, tokens_BT: Tensor, pattern_PL: Tensor) -> tuple[Tensor, Spent]:
    """The candidates' probabilities of the next token, averaged (context `same`), and what that took.

    Returns:
        probability_BTV, and the walk's cost.
    """
    places = backbone.places(tokens_BT, 0, 0)
    x_BTD = backbone.embed(tokens_BT, places)
    total_NV = x_BTD.new_zeros(tokens_BT.numel(), backbone.config.vocabulary)

    def leaf(pattern_J: Tensor, x_JBTD: Tensor) -> None:
        for x_BTD in x_JBTD:
            for rows, logits_RV in logits(backbone, backbone.norm(x_BTD).flatten(0, 1)):
                total_NV[rows] += logits_RV.softmax(-1)
        part.step(len(pattern_J))

    chunk = max(1, STATE_BYTES // (x_BTD.numel() * x_BTD.element_size()))
    trie = Trie.of(pattern_PL.cpu())
    with count("pattern", len(pattern_PL)) as part:
        spent = walk(backbone, trie, x_BTD, attend=same(places), chunk=chunk, leaf=leaf)
    return (total_NV / len(pattern_PL)).view(*tokens_BT.shape, -1), spent
