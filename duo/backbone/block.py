"""One layer of the duo backbone: shared attention, and a small and a big FFN side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duo.backbone.attention import Attention, Places
from duo.backbone.config import BIG, MODULES, SKIP, SMALL, BackboneConfig
from duo.backbone.dense import PLAIN, Dense
from duo.backbone.room import Pair, extend
from duo.backbone.routed import Product, learning, mix

Gate = Callable[[Tensor, int], Tensor]
"""gate(x_BSD, layer) -> weight_BSM over (skip, small, big), asked once a layer with the tokens of the present step."""

Half = tuple[Tensor, Tensor, Any]
"""A layer up to its choice: what the gate may see, the stream, and what `Tokens.look` returned."""


class FFN(nn.Module):
    """SwiGLU (`llama`) or ReLU (`opt`)."""

    def __init__(self, config: BackboneConfig, inner: int) -> None:
        super().__init__()
        bias = config.ffn_biased
        self.gate = nn.Linear(config.width, inner, bias=bias) if config.family == "llama" else None
        self.up = nn.Linear(config.width, inner, bias=bias)
        self.down = nn.Linear(inner, config.width, bias=bias)

    def forward(self, x_RD: Tensor, product: Product = nn.Linear.__call__) -> Tensor:
        """(R, D) -> (R, D); `product` may compute some rows alone."""
        return product(self.down, self.inner(x_RD, product))

    def inner(self, x_RD: Tensor, product: Product = nn.Linear.__call__) -> Tensor:
        """Activations of the neurons, (R, inner)."""
        if self.gate is None:
            return F.relu(product(self.up, x_RD))
        return F.silu(product(self.gate, x_RD)) * product(self.up, x_RD)


class RMSNorm(nn.RMSNorm):
    """A norm whose weight takes the type of the stream: a block that is sharded may have its weights in 16 bits."""

    def forward(self, x_XD: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        # of two types torch has no fast kernel
        return F.rms_norm(x_XD, self.normalized_shape, self.weight.to(x_XD.dtype), self.eps)


class DuoFFN(nn.Module):
    """A small and a big FFN side by side (section 2, stage 1)."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.small = FFN(config, config.small)
        self.big = FFN(config, config.big)

    def forward(self, x_BSD: Tensor, weight_BSM: Tensor, real_BS: Tensor | None = None, dense: Dense = PLAIN) -> Tensor:
        """`sum_m weight_m * module_m(x)`, module m on the tokens whose weight for it is not 0 (see `mix`)."""
        real_N = None if real_BS is None else real_BS.flatten()
        ffns = dense.on_rows(self.small, FFN.forward), dense.on_rows(self.big, FFN.forward)
        # O: small and big
        y_ND = mix(ffns, x_BSD.flatten(0, 1), weight_BSM[..., 1:].flatten(0, 1), real_N)
        return y_ND.view_as(x_BSD)

    def of(self, module: int) -> FFN:
        """The FFN that stands for a module other than skip."""
        return {SMALL: self.small, BIG: self.big}[module]


class Tokens(Protocol):
    """The tokens of one layer, the part in which model and searches differ; X: any dimensions in front."""

    def look(self, attention: Attention, x_XD: Tensor) -> Any:
        """Gives every token a key and a value, whatever it will skip; returns what `draw` draws from."""

    def draw(self, attention: Attention, seen: Any) -> Tensor:
        """What all tokens draw by attention."""

    def choose(self, x_XD: Tensor) -> None:
        """Settles each token's module, from what its layer's gate may see."""

    def keep(self, attention: Attention, seen: Any) -> Tensor:
        """What the tokens draw whose module is not skip; 0 for the others."""

    def feed(self, ffn: DuoFFN, x_XD: Tensor, h_XD: Tensor, skipped_XD: Tensor) -> Tensor:
        """Adds to h what each token's module makes of x; `skipped` where the module is skip."""


class Seen(NamedTuple):
    """What the model's tokens draw from."""

    x_BSD: Tensor
    """The tokens themselves, as attention reads them."""
    keys_values: Pair
    """Of the past, then of the tokens themselves."""


@dataclass
class GatedTokens:
    """The tokens of the model: a gate weighs their modules; all of a sequence attend to one another and to the past."""

    gate: Gate
    layer: int
    places: Places
    past: Pair | None
    dense: Dense = PLAIN
    weight_BSM: Tensor = field(init=False)  # what the gate said

    def look(self, attention: Attention, x_BSD: Tensor) -> Seen:
        """Keys and values of the past, then the tokens' own."""
        own = attention.keys_values(x_BSD, self.places)
        return Seen(x_BSD, own if self.past is None else extend(self.past, own))

    def draw(self, attention: Attention, seen: Seen) -> Tensor:
        """Attention."""
        return attention.attend(seen.x_BSD, *seen.keys_values, self.places)

    def choose(self, x_BSD: Tensor) -> None:
        """Asks the gate."""
        self.weight_BSM = ask(self.gate, x_BSD, self.layer, self.places)

    def keep(self, attention: Attention, seen: Seen) -> Tensor:
        """Attention, weighted by what does not skip."""
        keep_BS1 = 1 - self.weight_BSM[..., SKIP, None]
        draw = partial(attention.draw, seen.x_BSD, *seen.keys_values, self.places)
        drawn_BSD, missed_BS1 = draw(keep_BS1[..., 0]), keep_BS1 == 0
        if learning(keep_BS1) and missed_BS1.any():  # who skips learns what it missed, as in `mix`
            with torch.no_grad():
                missed_BSD = draw(missed_BS1[..., 0])
            drawn_BSD = torch.where(missed_BS1, missed_BSD, drawn_BSD)
        return keep_BS1 * drawn_BSD  # weighed, not only chosen: a soft skip learns through it

    def feed(self, ffn: DuoFFN, x_BSD: Tensor, h_BSD: Tensor, skipped_BSD: Tensor) -> Tensor:
        """The weighted modules; h is `skipped` already where the weight of skip is 1."""
        return h_BSD + ffn(x_BSD, self.weight_BSM, self.places.real_BS, self.dense)

    @property
    def plain(self) -> bool:
        """Whether they are whole sequences without padding, which attend to nothing but themselves."""
        return self.past is None and self.places.mask_BSU is None


class Block(nn.Module):
    """Attention and DuoFFN around a residual stream, in either skip scope."""

    def __init__(self, config: BackboneConfig, layer: int) -> None:
        super().__init__()
        norm = RMSNorm if config.family == "llama" else nn.LayerNorm
        self.block_scope = config.skip_scope == "block"
        self.attention_norm = norm(config.width, eps=config.norm_epsilon)
        self.attention = Attention(config, layer)
        self.ffn_norm = norm(config.width, eps=config.norm_epsilon)
        self.ffn = DuoFFN(config)

    def forward(
        self, x_BSD: Tensor, gate: Gate, layer: int, places: Places, past: Pair | None, dense: Dense = PLAIN
    ) -> tuple[Tensor, Tensor, Pair]:
        """The stream after this layer, the gate's weight_BSM, and the keys and values of the past and this step's.

        It is `layer`, run in its two halves as `dense` says; the gate is asked between them.
        """
        tokens = GatedTokens(gate, layer, places, past, dense)
        # steps of decoding, each longer than the one before, are as many programs
        before = dense.compiled(Block.before) if tokens.plain else Block.before
        shown_BSD, h_BSD, seen = dense.run(before, self, x_BSD, tokens)
        tokens.choose(shown_BSD)
        if dense.checkpointed and not self.block_scope:  # norms h once more, so that h alone is held
            y_BSD = dense.run(Block.after, self, None, h_BSD, None, tokens)
        else:
            y_BSD = dense.run(Block.after, self, shown_BSD, h_BSD, seen, tokens)
        return y_BSD, tokens.weight_BSM, seen.keys_values

    def layer(self, x_XD: Tensor, tokens: Tokens) -> Tensor:
        """The stream after this layer: the one place that says what a layer computes, for the model and the searches.

        Scope `ffn`: h = x + attention(norm(x)); y = h + module(norm(h)), or h where the module is skip.
        Scope `block`: the same, but x where the module is skip. The gate sees what a skip would bypass.
        """
        shown_XD, h_XD, seen = self.before(x_XD, tokens)
        tokens.choose(shown_XD)
        return self.after(shown_XD, h_XD, seen, tokens)

    def before(self, x_XD: Tensor, tokens: Tokens) -> Half:
        """The layer up to its choice."""
        normed_XD = self.attention_norm(x_XD)
        seen = tokens.look(self.attention, normed_XD)  # before the choice: who skips the block is still attended to
        if self.block_scope:
            return normed_XD, x_XD, seen
        h_XD = x_XD + tokens.draw(self.attention, seen)  # in this scope attention is shared: no token skips it
        return self.ffn_norm(h_XD), h_XD, seen

    def after(self, shown_XD: Tensor | None, h_XD: Tensor, seen: Any, tokens: Tokens) -> Tensor:
        """The layer from its choice on; scope `ffn` needs no more than h."""
        if self.block_scope:
            y_XD = h_XD + tokens.keep(self.attention, seen)
            return tokens.feed(self.ffn, self.ffn_norm(y_XD), y_XD, h_XD)
        return tokens.feed(self.ffn, self.ffn_norm(h_XD) if shown_XD is None else shown_XD, h_XD, h_XD)


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
