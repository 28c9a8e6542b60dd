"""Attention, and where its tokens stand: shared by a layer's small and big FFN."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duo.backbone.config import BackboneConfig


class Places(NamedTuple):
    """Where the tokens of a step stand and what they may attend to, in all layers; B may be 1 if sequences agree."""

    position_BS: Tensor  # counted from the first real token
    rotation_BSX: Tensor | None  # of a head's numbers: cosines, then sines; None without rotary positions
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
        # a part of one row stands for every sequence already: it broadcasts
        parts = {name: part for name, part in self._asdict().items() if isinstance(part, Tensor) and len(part) > 1}
        return self._replace(**{name: change(part) for name, part in parts.items()})  # type: ignore[arg-type]

    def pick(self, order_BS: Tensor, keys: int) -> Places:
        """The same for some tokens of each sequence, by index, over so many keys."""
        steps = self.position_BS.shape[1]
        # without a mask the step's tokens are the last of the keys, and see what is not behind them
        mask_BSU = torch.ones(1, steps, keys, dtype=torch.bool, device=order_BS.device).tril(keys - steps)
        mask_BSU = mask_BSU if self.mask_BSU is None else self.mask_BSU
        batch = len(order_BS)
        chosen = torch.arange(batch, device=order_BS.device)[:, None], order_BS
        rotation_BSX = None if self.rotation_BSX is None else self.rotation_BSX.expand(batch, -1, -1)[chosen]
        mask_BSU = mask_BSU.expand(batch, -1, -1)[chosen]
        # positions and real tokens stay unpicked: attend reads neither; picked rows are no triangle any more
        return self._replace(rotation_BSX=rotation_BSX, mask_BSU=mask_BSU, causal=False)


class Attention(nn.Module):
    """Causal attention with grouped queries, of one layer."""

    def __init__(self, config: BackboneConfig, layer: int) -> None:
        super().__init__()
        bias = config.biased != "none"
        kv_width = config.kv_heads * config.head_width
        self.head_width, self.rotated = config.head_width, layer not in config.unrotated
        self.query = nn.Linear(config.width, config.attention_width, bias=bias)
        self.key = nn.Linear(config.width, kv_width, bias=bias)
        self.value = nn.Linear(config.width, kv_width, bias=bias)
        self.output = nn.Linear(config.attention_width, config.width, bias=config.biased == "all")
        self.query_norm, self.key_norm = (
            nn.RMSNorm(config.head_width, eps=config.norm_epsilon) if config.qk_norm else None for _ in range(2)
        )

    def keys_values(self, x_BSD: Tensor, places: Places) -> tuple[Tensor, Tensor]:
        """Keys (rotated) and values of these tokens, (B, H, S, K) each."""
        # turned before they are kept, so that a cache never turns them again
        # keys first: gradients add up in the reverse order, and in another one to other bits
        key_BHSK = self._turned(self.key(x_BSD), self.key_norm, places)
        return key_BHSK, self.value(x_BSD).unflatten(-1, (-1, self.head_width)).transpose(1, 2)

    def queries(self, x_BSD: Tensor, places: Places) -> Tensor:
        """Queries (rotated) of these tokens, (B, H, S, K)."""
        return self._turned(self.query(x_BSD), self.query_norm, places)

    def attend(self, x_BSD: Tensor, key_BHUK: Tensor, value_BHUK: Tensor, places: Places) -> Tensor:
        """What these tokens draw from the keys and values, (B, S, D)."""
        query_BHSK = self.queries(x_BSD, places)
        mask = None if places.mask_BSU is None else places.mask_BSU[:, None]
        grouped = len(key_BHUK[0]) != len(query_BHSK[0])
        mixed_BHSK = F.scaled_dot_product_attention(
            query_BHSK, key_BHUK, value_BHUK, mask, is_causal=places.causal, enable_gqa=grouped
        )
        return self.output(mixed_BHSK.transpose(1, 2).flatten(2))

    def draw(self, x_BSD: Tensor, key: Tensor, value: Tensor, places: Places, keep_BS: Tensor) -> Tensor:
        """`attend` for the real tokens whose keep is not 0; 0 for the others, at no cost."""
        kept_BS = keep_BS != 0 if places.real_BS is None else (keep_BS != 0) & places.real_BS
        most = int(kept_BS.sum(1).max())  # a shape, so the device is waited for
        if most == kept_BS.shape[1]:
            return self.attend(x_BSD, key, value, places)
        # the kept ones of each sequence first: as many columns as the sequence that keeps most has
        order_BS = (~kept_BS).to(torch.int8).argsort(dim=1, stable=True)[:, :most]
        # also where none keeps: query and output stay in the graph, so no process waits for their gradients
        index_BSD = order_BS[..., None].expand(-1, -1, x_BSD.shape[-1])
        mixed_BSD = self.attend(x_BSD.gather(1, index_BSD), key, value, places.pick(order_BS, key.shape[2]))
        # autocast may have changed the type
        return torch.zeros_like(x_BSD).scatter(1, index_BSD, mixed_BSD.to(x_BSD.dtype))

    def _turned(self, x_BSX: Tensor, norm: nn.Module | None, places: Places) -> Tensor:
        """Split into heads, (B, H, S, K), normed if they are, and turned by the rotary positions if there are any."""
        x_BSHK = x_BSX.unflatten(-1, (-1, self.head_width))
        if norm is not None:
            x_BSHK = norm(x_BSHK)
        if self.rotated and places.rotation_BSX is not None:
            cosine_BS1K, sine_BS1K = places.rotation_BSX[:, :, None].chunk(2, dim=-1)
            # each number and its partner in the other half, whole heads at once: fewer operators than half by half
            turned_BSHK = x_BSHK * cosine_BS1K + x_BSHK.roll(self.head_width // 2, -1) * sine_BS1K
            x_BSHK = turned_BSHK.to(x_BSHK.dtype)
        return x_BSHK.transpose(1, 2)
