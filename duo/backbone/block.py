"""One layer of the duo backbone: shared attention, and a small and a big FFN side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duo.backbone.attention import Attention, Places
from duo.backbone.config import BIG, MODULES, SKIP, SMALL, BackboneConfig
from duo.backbone.room import Pair, extend

Gate = Callable[[Tensor, int], Tensor]
"""gate(x_BSD, layer) -> weight_BSM over (skip, small, big), asked once a layer with the tokens of the present step."""

Draw = Callable[[Tensor | None], Tensor]
"""draw(keep_BS) -> what the tokens draw by attention; 0 where keep_BS is 0, at no cost. None: all of them draw."""


class FFN(nn.Module):
    """SwiGLU (`llama`) or ReLU (`opt`)."""

    def __init__(self, config: BackboneConfig, inner: int) -> None:
        super().__init__()
        bias = config.family == "opt"
        self.gate = nn.Linear(config.width, inner, bias=False) if config.family == "llama" else None
        self.up = nn.Linear(config.width, inner, bias=bias)
        self.down = nn.Linear(inner, config.width, bias=bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        inner = F.relu(self.up(x_ND)) if self.gate is None else F.silu(self.gate(x_ND)) * self.up(x_ND)
        return self.down(inner)


class DuoFFN(nn.Module):
    """A small and a big FFN side by side (section 2, stage 1)."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.small = FFN(config, config.small)
        self.big = FFN(config, config.big)

    def forward(self, x_BSD: Tensor, weight_BSM: Tensor, real_BS: Tensor | None = None) -> Tensor:
        """`sum_m weight_m * module_m(x)` over the tokens that give module m a weight other than 0.

        Where the weights learn (`learning`), the real tokens run the other modules too: these add 0 here, and what they
        would have added to the gradient of the weights (a gate learns from what it did not choose).

        A module without tokens is called on an empty batch: its parameters get zero gradients, and no process waits.
        """
        x_ND, weight_NO = x_BSD.flatten(0, 1), weight_BSM[..., 1:].flatten(0, 1)  # O: small and big
        y_ND = torch.zeros_like(x_ND)
        chosen_NO = weight_NO != 0
        made_RD, at_R = self._run(x_ND, chosen_NO)
        # added, not written: a soft mixture gives a token to both
        y_ND.index_add_(0, at_R[0], (made_RD * weight_NO[at_R][:, None]).to(x_ND.dtype))
        if learning(weight_NO) and len(made_RD) < weight_NO.numel():
            idle_NO = ~chosen_NO if real_BS is None else ~chosen_NO & real_BS.flatten()[:, None]
            with torch.no_grad():  # times a weight of 0: neither x nor the parameters have a gradient through it
                made_RD, at_R = self._run(x_ND, idle_NO)
            y_ND.index_add_(0, at_R[0], (made_RD * weight_NO[at_R][:, None]).to(x_ND.dtype))
        return y_ND.view_as(x_BSD)

    def _run(self, x_ND: Tensor, chosen_NO: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What small, then big make of the tokens chosen for them, (R, D), and where these stand in (N, O)."""
        module_R, token_R = chosen_NO.t().nonzero().unbind(1)  # R: the tokens of small, then those of big
        few = int((module_R == 0).sum())
        # gathered, not masked: both FFNs on all tokens are slower than all big (measured)
        small_RD, big_RD = x_ND.index_select(0, token_R).tensor_split((few,))
        return torch.cat((self.small(small_RD), self.big(big_RD))), (token_R, module_R)

    def of(self, module: int) -> FFN:
        """The FFN that stands for a module other than skip."""
        return {SMALL: self.small, BIG: self.big}[module]


class Tokens(Protocol):
    """The tokens of one layer, the part in which model and searches differ; X: any dimensions in front."""

    def look(self, attention: Attention, x_XD: Tensor) -> Draw:
        """Gives every token a key and a value, whatever it will skip; returns how they are drawn from."""

    def choose(self, x_XD: Tensor) -> None:
        """Settles each token's module, from what its layer's gate may see."""

    def keep(self, draw: Draw) -> Tensor:
        """What the tokens draw whose module is not skip; 0 for the others."""

    def feed(self, ffn: DuoFFN, x_XD: Tensor, h_XD: Tensor, skipped_XD: Tensor) -> Tensor:
        """Adds to h what each token's module makes of x; `skipped` where the module is skip."""


@dataclass
class GatedTokens:
    """The tokens of the model: a gate weighs their modules; all of a sequence attend to one another and to the past."""

    gate: Gate
    layer: int
    places: Places
    past: Pair | None
    weight_BSM: Tensor = field(init=False)  # what the gate said
    keys_values: Pair = field(init=False)  # of the past, then the tokens' own

    def look(self, attention: Attention, x_BSD: Tensor) -> Draw:
        """Keys and values of the past, then the tokens' own."""
        own = attention.keys_values(x_BSD, self.places)
        self.keys_values = key, value = own if self.past is None else extend(self.past, own)
        return partial(attention.draw, x_BSD, key, value, self.places)

    def choose(self, x_BSD: Tensor) -> None:
        """Asks the gate."""
        self.weight_BSM = ask(self.gate, x_BSD, self.layer, self.places)

    def keep(self, draw: Draw) -> Tensor:
        """Attention, weighted by what does not skip."""
        keep_BS1 = 1 - self.weight_BSM[..., SKIP, None]
        drawn_BSD, missed_BS1 = draw(keep_BS1[..., 0]), keep_BS1 == 0
        if learning(keep_BS1) and missed_BS1.any():  # who skips learns what it missed, as in `DuoFFN`
            with torch.no_grad():
                missed_BSD = draw(missed_BS1[..., 0])
            drawn_BSD = torch.where(missed_BS1, missed_BSD, drawn_BSD)
        return keep_BS1 * drawn_BSD  # weighed, not only chosen: a soft skip learns through it

    def feed(self, ffn: DuoFFN, x_BSD: Tensor, h_BSD: Tensor, skipped_BSD: Tensor) -> Tensor:
        """The weighted modules; h is `skipped` already where the weight of skip is 1."""
        return h_BSD + ffn(x_BSD, self.weight_BSM, self.places.real_BS)


class Block(nn.Module):
    """Attention and DuoFFN around a residual stream, in either skip scope."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        norm = nn.RMSNorm if config.family == "llama" else nn.LayerNorm
        self.block_scope = config.skip_scope == "block"
        self.attention_norm = norm(config.width, eps=config.norm_epsilon)
        self.attention = Attention(config)
        self.ffn_norm = norm(config.width, eps=config.norm_epsilon)
        self.ffn = DuoFFN(config)

    def forward(
        self, x_BSD: Tensor, gate: Gate, layer: int, places: Places, past: Pair | None
    ) -> tuple[Tensor, Tensor, Pair]:
        """The stream after this layer, the gate's weight_BSM, and the keys and values of the past and this step's."""
        tokens = GatedTokens(gate, layer, places, past)
        y_BSD = self.layer(x_BSD, tokens)
        return y_BSD, tokens.weight_BSM, tokens.keys_values

    def layer(self, x_XD: Tensor, tokens: Tokens) -> Tensor:
        """The stream after this layer: the one place that says what a layer computes, for the model and the searches.

        Scope `ffn`: h = x + attention(norm(x)); y = h + module(norm(h)), or h where the module is skip.
        Scope `block`: the same, but x where the module is skip. The gate sees what a skip would bypass.
        """
        normed_XD = self.attention_norm(x_XD)
        draw = tokens.look(self.attention, normed_XD)  # before the choice: who skips the block is still attended to
        if self.block_scope:
            tokens.choose(normed_XD)
            h_XD = x_XD + tokens.keep(draw)
            return tokens.feed(self.ffn, self.ffn_norm(h_XD), h_XD, x_XD)
        h_XD = x_XD + draw(None)  # in this scope attention is shared: no token skips it
        normed_XD = self.ffn_norm(h_XD)
        tokens.choose(normed_XD)
        return tokens.feed(self.ffn, normed_XD, h_XD, h_XD)


def learning(weight: Tensor) -> bool:
    """Whether weights are to get a gradient: then what they are weights of must be known, also where they are 0."""
    return torch.is_grad_enabled() and weight.requires_grad


def _shown(x_BSD: Tensor) -> Tensor:
    """What a gate is shown: the stream, or where it learns nothing a copy, by which not even numpy can tune it."""
    if x_BSD.requires_grad:
        return x_BSD
    with torch.inference_mode(False):  # of an inference tensor nobody notes that it is written into
        return x_BSD.clone()


def ask(gate: Gate, x_BSD: Tensor, layer: int, places: Places) -> Tensor:
    """The gate's weight_BSM in the type and on the device of x, 0 for padding.

    Raises:
        ValueError: the answer is no tensor of shape (B, S, 3), or the gate has written into x or a view of it.
    """
    shown_BSD = _shown(x_BSD)
    version = shown_BSD._version
    weight: Any = gate(shown_BSD, layer)
    if shown_BSD._version != version:
        raise ValueError(
            f"the gate changed its input at layer {layer}: the stream is the model's own, so write into a copy "
            "(x_BSD.clone())"
        )
    expected = (*x_BSD.shape[:2], len(MODULES))
    if not isinstance(weight, Tensor) or weight.shape != expected:
        said = f"shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else f"a {type(weight).__name__}"
        raise ValueError(
            f"the gate answered {said} at layer {layer}: expected weights over {MODULES} of shape {expected}"
        )
    weight = weight.to(x_BSD)
    return weight if places.real_BS is None else weight * places.real_BS[..., None]
