"""Random numbers as a function of what they are for, never a stream."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

# What random numbers are drawn for. Each stands in every hash, and so in every trained weight and every score: to
# change one is to change all numbers that were ever published. What people are shown has words of its own.
STAGE_1 = "stage 1"
STAGE_3 = "stage 3"
TRAIN = "train"
CALIBRATE = "calibration"
EVALUATE = "evaluate"
ROUND_COUNTS = "counts"
SAMPLE = "sample"


def hash_key(seed: int, purpose: str, step: int, draw: int) -> int:
    """A 63-bit integer for these draws."""
    parts = repr((seed, purpose, step, draw))  # not hash(), which differs between processes
    return int.from_bytes(hashlib.sha256(parts.encode()).digest()[:8], "big") >> 1  # torch's integers are signed


def uniform(key: int, sequence_B: Tensor, position_BT: Tensor, layers: int) -> Tensor:
    """uniform_BTL with 24 random bits, so that float32 holds them exactly."""
    layer_L = torch.arange(layers, device=sequence_B.device)
    hash_B = _mix(_mix(sequence_B.long() + 1) ^ key)  # + 1: the mix leaves 0 at 0
    hash_BT = _mix(hash_B[:, None] + position_BT)
    hash_BTL = _mix(hash_BT[..., None] + layer_L)
    return ((hash_BTL >> 40) & 0xFFFFFF).float() / (1 << 24)  # the mask drops the sign that torch shifts in


def _mix(x: Tensor) -> Tensor:
    """A bijection of 64-bit integers that spreads every bit over all others (the finaliser of SplitMix64)."""
    # 0xBF58476D1CE4E5B9 and 0x94D049BB133111EB, signed; the masks make torch's shifts logical
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ (x >> shift & (1 << 64 - shift) - 1)) * factor
    return x ^ (x >> 31 & (1 << 33) - 1)
