"""Small FFNs out of big ones: the most active neurons, refitted to what the big FFN makes of the same states.

Layer by layer, so that the states of one layer are held alone: of tokens whose routes are all big, and of others whose
routes are random, behind the small FFNs that are fitted already. Squared errors leave a sequence's first token out:
trained models give it activations a hundred times the others' (Sun et al., 2024, "Massive activations").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from duo.backbone import BIG, MODULES, Backbone, Gate
from duo.backbone.attention import Places
from duo.backbone.block import FFN, Block, DuoFFN, GatedTokens
from duo.progress import track

RIDGE = 1e-3  # of the mean square of an activation
ROWS = 1024  # states of one Adam step
LEARNING_RATE = 1e-3


def fit_small(backbone: Backbone, tokens_BT: Tensor, gate: Gate, steps: int) -> None:
    """Gives every routed layer a small FFN that does what its big one does, as far as it can; the rest stays as it is.

    Args:
        backbone: a trained model.
        tokens_BT: sequences without padding; 8,192 tokens will do.
        gate: random routes of these tokens.
        steps: of Adam, in each layer, after regression.
    """
    places = backbone.places(tokens_BT, 0, 0)
    with torch.no_grad():
        big_BTD = random_BTD = backbone.embed(tokens_BT, places)
    for layer in track(range(backbone.config.layers), "layer"):
        block = backbone.block(layer)
        with torch.no_grad():
            big, random = (_attended(block, layer, x_BTD, places) for x_BTD in (big_BTD, random_BTD))
            weight_BTM = _all_big(big.x_BSD)
        if layer in backbone.routed:
            x_ND = torch.cat([each.x_BSD[:, 1:].flatten(0, 1) for each in (big, random)])
            _fit(block.ffn, x_ND, steps)
            weight_BTM = gate(random.x_BSD, backbone.routed.index(layer)).to(big_BTD)
        with torch.no_grad():
            big_BTD = big.h_BSD + block.ffn.big(big.x_BSD.flatten(0, 1)).view_as(big.h_BSD)
            random_BTD = random.h_BSD + block.ffn(random.x_BSD, weight_BTM)


@dataclass
class _Seen(GatedTokens):
    """Tokens of a layer up to its FFNs: what these read, and the stream that they add to."""

    def feed(self, ffn: DuoFFN, x_BSD: Tensor, h_BSD: Tensor, skipped_BSD: Tensor) -> Tensor:
        self.x_BSD, self.h_BSD = x_BSD, h_BSD
        return h_BSD


def _attended(block: Block, layer: int, x_BTD: Tensor, places: Places) -> _Seen:
    tokens = _Seen(lambda x_BSD, layer: _all_big(x_BSD), layer, places, None)  # no token skips
    block.layer(x_BTD, tokens)
    return tokens


def _all_big(x_BSD: Tensor) -> Tensor:
    return F.one_hot(torch.full(x_BSD.shape[:2], BIG, device=x_BSD.device), len(MODULES)).to(x_BSD)


def _fit(ffn: DuoFFN, x_ND: Tensor, steps: int) -> None:
    """Neurons, then regression, then Adam."""
    small, big = ffn.small, ffn.big
    with torch.no_grad():
        target_ND = big(x_ND)
        _take_neurons(small, big, big.inner(x_ND[: len(x_ND) // 2]))  # the first half is of all big
        _regress(small, x_ND, target_ND)
    _descend(small, x_ND, target_ND, steps)


def _take_neurons(small: FFN, big: FFN, inner_NI: Tensor) -> None:
    """The neurons that move the stream most: mean |activation| times the norm of what they write."""
    moved_I = inner_NI.abs().mean(0) * big.down.weight.norm(dim=0)
    chosen_S = moved_I.topk(small.up.out_features).indices.sort().values
    for ours, theirs in zip((small.gate, small.up), (big.gate, big.up), strict=True):
        if ours is not None and theirs is not None:
            ours.weight.copy_(theirs.weight[chosen_S])
            if ours.bias is not None:
                ours.bias.copy_(theirs.bias[chosen_S])
    small.down.weight.copy_(big.down.weight[:, chosen_S])
    if small.down.bias is not None:
        small.down.bias.copy_(big.down.bias)


def _regress(small: FFN, x_ND: Tensor, target_ND: Tensor) -> None:
    """The down projection of least squared error, by ridge regression."""
    inner_NS = small.inner(x_ND).double()
    wanted_ND = (target_ND if small.down.bias is None else target_ND - small.down.bias).double()
    square_SS = inner_NS.T @ inner_NS
    square_SS.diagonal().add_(RIDGE * square_SS.diagonal().mean() + torch.finfo(torch.float32).tiny)
    down_SD = torch.linalg.solve(square_SS, inner_NS.T @ wanted_ND)
    small.down.weight.copy_(down_SD.T)


def _descend(small: FFN, x_ND: Tensor, target_ND: Tensor, steps: int) -> None:
    """Steps of Adam on the squared error, a cosine down to 0; the better of beginning and end is kept."""
    if not steps:
        return
    scale = target_ND.square().mean().clamp(min=torch.finfo(torch.float32).tiny)

    def error(x_RD: Tensor, target_RD: Tensor) -> Tensor:
        return (small(x_RD) - target_RD).square().mean() / scale

    begin = {name: value.clone() for name, value in small.state_dict().items()}
    learning = [*small.parameters()]
    before = [parameter.requires_grad for parameter in learning]
    small.requires_grad_(True)
    with torch.no_grad():
        first = error(x_ND, target_ND)
    optimizer = torch.optim.Adam(learning, LEARNING_RATE)
    # a generator of its own: torch's global one is for first weights
    order_N = torch.randperm(len(x_ND), generator=torch.Generator().manual_seed(0)).to(x_ND.device)
    with torch.enable_grad():
        for step in range(steps):
            row_R = order_N.roll(-step * ROWS)[:ROWS]
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * step / steps)) / 2
            gradients = torch.autograd.grad(error(x_ND[row_R], target_ND[row_R]), learning)
            for parameter, gradient in zip(learning, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        if not error(x_ND, target_ND) < first:
            small.load_state_dict(begin)
    for parameter, required in zip(learning, before, strict=True):
        parameter.requires_grad_(required)
