"""One layer of the duo backbone: shared attention, and a small and a big FFN side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from duo.backbone.config import BIG, MODULES, SKIP, SMALL, BackboneConfig

Gate = Callable[[Tensor, int], Tensor]
"""gate(x_BSD, layer) -> weight_BSM over (skip, small, big), asked once a layer with the tokens of the present step."""

Draw = Callable[[Tensor | None], Tensor]
"""draw(keep_BS) -> what the tokens draw by attention; 0 where keep_BS is 0, at no cost. None: all of them draw."""


class Places(NamedTuple):
    """Where the tokens of a step stand and what they may attend to, in all layers; B may be 1 if sequences agree."""

    position_BS: Tensor  # counted from the first real token
    rotation_BSR: Tensor | None  # cosines, then sines (R = K); None without rotary positions
    mask_BSU: Tensor | None  # over the U keys of context and step; None: see `causal`
    causal: bool  # without a mask: causal attention, or attention to every key
    real_BS: Tensor | None  # False for padding; None where there is none

    def repeat(self, times: int) -> Places:
        """The same for a batch that holds the sequences so many times over."""
        return self._each(lambda part: torch.cat([part] * times))

    def rows(self, index_R: Tensor) -> Places:
        """The same for some sequences, by index."""
        return self._each(lambda part: part[index_R])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Places:
        """The parts that differ between sequences, changed."""
        parts = {name: part for name, part in self._asdict().items() if isinstance(part, Tensor) and len(part) > 1}
        return self._replace(**{name: change(part) for name, part in parts.items()})  # type: ignore[arg-type]

    def pick(self, order_BS: Tensor, keys: int) -> Places:
        """The same for some tokens of each sequence, by index, over so many keys."""
        steps = self.position_BS.shape[1]
        mask_BSU = torch.ones(1, steps, keys, dtype=torch.bool, device=order_BS.device).tril(keys - steps)
        mask_BSU = mask_BSU if self.mask_BSU is None else self.mask_BSU
        batch = len(order_BS)
        chosen = torch.arange(batch, device=order_BS.device)[:, None], order_BS
        rotation_BSR = None if self.rotation_BSR is None else self.rotation_BSR.expand(batch, -1, -1)[chosen]
        mask_BSU = mask_BSU.expand(batch, -1, -1)[chosen]
        return self._replace(rotation_BSR=rotation_BSR, mask_BSU=mask_BSU, causal=False)


class Attention(nn.Module):
    """Causal attention with grouped queries."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        bias = config.family == "opt"
        kv_width = config.kv_heads * config.head_width
        self.head_width = config.head_width
        self.query = nn.Linear(config.width, config.width, bias=bias)
        self.key = nn.Linear(config.width, kv_width, bias=bias)
        self.value = nn.Linear(config.width, kv_width, bias=bias)
        self.output = nn.Linear(config.width, config.width, bias=bias)

    def keys_values(self, x_BSD: Tensor, places: Places) -> tuple[Tensor, Tensor]:
        """Keys (rotated) and values of these tokens, (B, H, S, K) each."""
        return self.heads(self.key(x_BSD), places.rotation_BSR), self.heads(self.value(x_BSD), None)

    def attend(self, x_BSD: Tensor, key_BHUK: Tensor, value_BHUK: Tensor, places: Places) -> Tensor:
        """What these tokens draw from the keys and values, (B, S, D)."""
        query_BHSK = self.heads(self.query(x_BSD), places.rotation_BSR)
        mask = None if places.mask_BSU is None else places.mask_BSU[:, None]
        grouped = len(key_BHUK[0]) != len(query_BHSK[0])
        mixed_BHSK = F.scaled_dot_product_attention(
            query_BHSK, key_BHUK, value_BHUK, mask, is_causal=places.causal, enable_gqa=grouped
        )
        return self.output(rearrange(mixed_BHSK, "b h s k -> b s (h k)"))

    def draw(self, x_BSD: Tensor, key: Tensor, value: Tensor, places: Places, keep_BS: Tensor | None) -> Tensor:
        """`attend` for the real tokens whose keep is not 0 (None: for all); 0 for the others, at no cost."""
        if keep_BS is None:
            return self.attend(x_BSD, key, value, places)
        kept_BS = keep_BS != 0 if places.real_BS is None else (keep_BS != 0) & places.real_BS
        most = int(kept_BS.sum(1).max())
        if most == kept_BS.shape[1]:
            return self.attend(x_BSD, key, value, places)
        # the kept ones of each sequence first: as many columns as the sequence that keeps most has
        order_BS = (~kept_BS).to(torch.int8).argsort(dim=1, stable=True)[:, :most]
        index_BSD = order_BS[..., None].expand(-1, -1, x_BSD.shape[-1])
        mixed_BSD = self.attend(x_BSD.gather(1, index_BSD), key, value, places.pick(order_BS, key.shape[2]))
        return torch.zeros_like(x_BSD).scatter(1, index_BSD, mixed_BSD.to(x_BSD.dtype))

    def heads(self, x_BSX: Tensor, rotation_BSR: Tensor | None) -> Tensor:
        """Split into heads, (B, H, S, K), and turned by the rotary positions if there are any."""
        x_BHSK = rearrange(x_BSX, "b s (h k) -> b h s k", k=self.head_width)
        if rotation_BSR is None:
            return x_BHSK
        (cosine, sine), (left, right) = rotation_BSR[:, None].chunk(2, dim=-1), x_BHSK.chunk(2, dim=-1)
        return torch.cat((left * cosine - right * sine, right * cosine + left * sine), dim=-1).to(x_BHSK.dtype)


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

    def forward(self, x_BSD: Tensor, weight_BSM: Tensor) -> Tensor:
        """`sum_m weight_m * module_m(x)` over the tokens that give module m a weight other than 0.

        A module without tokens is called on an empty batch: its parameters get zero gradients, and no process waits.
        """
        x_ND, weight_NM = x_BSD.flatten(0, 1), weight_BSM.flatten(0, 1)
        module_J, token_J = weight_NM[:, 1:].t().nonzero().unbind(1)  # J: the tokens of small, then those of big
        few = int((module_J == 0).sum())
        small_JD, big_JD = x_ND.index_select(0, token_J).tensor_split((few,))
        y_JD = torch.cat((self.small(small_JD), self.big(big_JD))) * weight_NM[token_J, module_J + 1, None]
        y_ND = torch.zeros_like(x_ND).index_add_(0, token_J, y_JD.to(x_ND.dtype))
        return y_ND.view_as(x_BSD)

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
    past: tuple[Tensor, Tensor] | None
    weight_BSM: Tensor = field(init=False)  # what the gate said
    keys_values: tuple[Tensor, Tensor] = field(init=False)  # the tokens' own

    def look(self, attention: Attention, x_BSD: Tensor) -> Draw:
        """Keys and values of the past, then the tokens' own."""
        self.keys_values = key, value = attention.keys_values(x_BSD, self.places)
        if self.past is not None:
            key, value = (torch.cat(pair, dim=2) for pair in zip(self.past, self.keys_values, strict=True))
        return partial(attention.draw, x_BSD, key, value, self.places)

    def choose(self, x_BSD: Tensor) -> None:
        """Asks the gate."""
        self.weight_BSM = ask(self.gate, x_BSD, self.layer, self.places)

    def keep(self, draw: Draw) -> Tensor:
        """Attention, weighted by what does not skip."""
        keep_BS1 = 1 - self.weight_BSM[..., SKIP, None]
        return keep_BS1 * draw(keep_BS1[..., 0])

    def feed(self, ffn: DuoFFN, x_BSD: Tensor, h_BSD: Tensor, skipped_BSD: Tensor) -> Tensor:
        """The weighted modules; h is `skipped` already where the weight of skip is 1."""
        return h_BSD + ffn(x_BSD, self.weight_BSM)


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
        self, x_BSD: Tensor, gate: Gate, layer: int, places: Places, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """The stream after this layer, the gate's weight_BSM, and this step's own keys and values."""
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
        h_XD = x_XD + draw(None)
        normed_XD = self.ffn_norm(h_XD)
        tokens.choose(normed_XD)
        return tokens.feed(self.ffn, normed_XD, h_XD, h_XD)


def ask(gate: Gate, x_BSD: Tensor, layer: int, places: Places) -> Tensor:
    """The gate's weight_BSM in the type and on the device of x, 0 for padding.

    Raises:
        ValueError: the answer is no tensor of shape (B, S, 3).
    """
    weight: Any = gate(x_BSD, layer)
    expected = (*x_BSD.shape[:2], len(MODULES))
    if not isinstance(weight, Tensor) or weight.shape != expected:
        said = f"shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else f"a {type(weight).__name__}"
        raise ValueError(
            f"the gate answered {said} at layer {layer}: expected weights over {MODULES} of shape {expected}"
        )
    weight = weight.to(x_BSD)
    return weight if places.real_BS is None else weight * places.real_BS[..., None]
