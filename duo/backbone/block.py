"""One layer of the duo backbone: shared attention, and a small and a big FFN side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from duo.backbone.config import MODULES, BackboneConfig

Gate = Callable[[Tensor, int], Tensor]
"""gate(x_BSD, layer) -> weight_BSM over (skip, small, big), asked once a layer with the tokens of the present step."""


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
        rows_B1 = torch.arange(len(order_BS), device=order_BS.device)[:, None]
        chosen = lambda x_BSX: x_BSX.expand(len(order_BS), -1, -1)[rows_B1, order_BS]  # noqa: E731
        rotation_BSR = None if self.rotation_BSR is None else chosen(self.rotation_BSR)
        return self._replace(rotation_BSR=rotation_BSR, mask_BSU=chosen(mask_BSU), causal=False)


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
        mixed_BHSK = F.scaled_dot_product_attention(
            query_BHSK,
            key_BHUK,
            value_BHUK,
            mask,
            is_causal=places.causal,
            enable_gqa=len(key_BHUK[0]) != len(query_BHSK[0]),
        )
        return self.output(rearrange(mixed_BHSK, "b h s k -> b s (h k)"))

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
        normed_BSD = self.attention_norm(x_BSD)
        keys_values = self.attention.keys_values(normed_BSD, places)
        key, value = (
            keys_values if past is None else (torch.cat(pair, dim=2) for pair in zip(past, keys_values, strict=True))
        )
        if self.block_scope:
            weight_BSM = ask(gate, normed_BSD, layer, places)
            keep_BS1 = 1 - weight_BSM[..., :1]
            h_BSD = x_BSD + keep_BS1 * self._attend_kept(normed_BSD, keep_BS1[..., 0], key, value, places)
            y_BSD = h_BSD + self.ffn(self.ffn_norm(h_BSD), weight_BSM)
        else:
            h_BSD = x_BSD + self.attention.attend(normed_BSD, key, value, places)
            normed_BSD = self.ffn_norm(h_BSD)
            weight_BSM = ask(gate, normed_BSD, layer, places)
            y_BSD = h_BSD + self.ffn(normed_BSD, weight_BSM)
        return y_BSD, weight_BSM, keys_values

    def _attend_kept(self, x_BSD: Tensor, keep_BS: Tensor, key: Tensor, value: Tensor, places: Places) -> Tensor:
        """Attention of the tokens that do not skip; 0 for the others, which pay nothing here."""
        kept_BS = keep_BS != 0 if places.real_BS is None else (keep_BS != 0) & places.real_BS
        most = int(kept_BS.sum(1).max())
        if most == kept_BS.shape[1]:
            return self.attention.attend(x_BSD, key, value, places)
        order_BS = (~kept_BS).to(torch.int8).argsort(dim=1, stable=True)[:, :most]
        index_BSD = order_BS[..., None].expand(-1, -1, x_BSD.shape[-1])
        mixed_BSD = self.attention.attend(x_BSD.gather(1, index_BSD), key, value, places.pick(order_BS, key.shape[2]))
        return torch.zeros_like(x_BSD).scatter(1, index_BSD, mixed_BSD.to(x_BSD.dtype))


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
