"""Rotary positions: by which angles a head's pairs of numbers turn."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from duo.backbone.config import BackboneConfig


def rotation(config: BackboneConfig, position_BS: Tensor) -> Tensor:
    """Cosines, then sines, of the rotary positions (pairs are the two halves of a head, as in Llama), (B, S, 2K)."""
    angle_BSK = position_BS[..., None].float() * frequencies(config, position_BS.device)
    cosine_BSK, sine_BSK = angle_BSK.cos(), angle_BSK.sin()
    # both halves turn by the same angles, the first against the second
    return torch.cat((cosine_BSK, cosine_BSK, -sine_BSK, sine_BSK), dim=-1)


def frequencies(config: BackboneConfig, device: torch.device) -> Tensor:
    """frequency_K: radians a position, of each pair of a head's numbers."""
    half = config.head_width // 2
    # float32 whatever the weights are: bfloat16 has no digits for far positions
    frequency_K = config.rotary_base ** (-torch.arange(half, device=device).float() / half)
    if config.rotary_scaling == "linear":
        return frequency_K / config.rotary_factor
    return _slowed(config, frequency_K) if config.rotary_scaling == "llama3" else frequency_K


def _slowed(config: BackboneConfig, frequency_K: Tensor) -> Tensor:
    """Llama 3.1's scaling: slow pairs slower by the factor, fast ones as they are, those between in between.

    As `_compute_llama3_parameters` of transformers.
    """
    turns_K = config.rotary_positions * frequency_K / (2 * math.pi)
    # 0: slowed whole; 1: as it is
    stays_K = ((turns_K - config.rotary_low) / (config.rotary_high - config.rotary_low)).clamp(0, 1)
    return frequency_K * (stays_K + (1 - stays_K) / config.rotary_factor)
