"""Random numbers as a function of what they are for, never a stream."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def hash_key(*parts: object) -> int:
    """A 63-bit integer from anything that prints."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def uniform(key: int, sequence_B: Tensor, position_BT: Tensor, layers: int) -> Tensor:
    """uniform_BTL with 24 random bits, so that float32 holds them exactly."""
    layer_L = torch.arange(layers, device=sequence_B.device)
    hash_B = _mix(_mix(sequence_B.long() + 1) ^ key)
    hash_BT = _mix(hash_B[:, None] + position_BT)
    hash_BTL = _mix(hash_BT[..., None] + layer_L)
    return ((hash_BTL >> 40) & 0xFFFFFF).float() / (1 << 24)


def _mix(x: Tensor) -> Tensor:
    """A bijection of 64-bit integers that spreads every bit over all others (the finaliser of SplitMix64)."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ (x >> shift & (1 << 64 - shift) - 1)) * factor
    return x ^ (x >> 31 & (1 << 33) - 1)
