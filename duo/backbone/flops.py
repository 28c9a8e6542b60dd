"""What a route costs, in closed form (2 FLOPs per multiply-add).

Position t, counted from the first real token, pays for t+1 keys. The head counts; looking up embeddings, norms (of
queries and keys too), biases and other element-wise work do not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from duo.backbone import BackboneConfig, Run
from duo.backbone.budget import Budget, Counts


def ffn_flops(config: BackboneConfig, inner: int) -> int:
    """FLOPs of one FFN of that inner width for one token."""
    matrices = 3 if config.family == "llama" else 2  # SwiGLU has a gate beside up and down
    return 2 * matrices * config.width * inner


def run_flops(config: BackboneConfig, weight_BTLM: Tensor, position_BT: Tensor) -> Tensor:
    """FLOPs of every token of a pass, (B, T).

    A module counts wherever its weight is not 0, and layers that have no weights (pinned ones) count as big. Padding (a
    negative position) costs nothing.
    """
    used_BTM = (weight_BTLM != 0).sum(2).double()  # float32 loses single FLOPs beyond 2^24
    pinned = config.layers - weight_BTLM.shape[2]
    attending_BT = torch.full_like(used_BTM[..., 0], config.layers)
    if config.skip_scope == "block":
        attending_BT = (weight_BTLM[..., 0] != 1).sum(2).double() + pinned  # who skips in part still attends
    flops_BT = token_flops(config, used_BTM[..., 1], used_BTM[..., 2] + pinned, attending_BT, position_BT)
    return flops_BT * (position_BT >= 0)


def pass_cost(config: BackboneConfig, run: Run, start: int = 0) -> tuple[int, float]:
    """Layers evaluated, summed over tokens, and FLOPs of one pass whose first token stood at position `start`."""
    real_BT = run.tokens_BT >= 0
    position_BT = (real_BT.cumsum(1) - 1).where(real_BT, -1)
    flops_BT = run_flops(config, run.weight_BTLM.detach(), position_BT)[:, start:]
    return int(real_BT[:, start:].sum()) * config.layers, float(flops_BT.sum())


def budget_flops(config: BackboneConfig, budget: Budget | Counts, position: Tensor) -> float:
    """Mean FLOPs of a token that spends exactly the budget, over tokens at these positions (any shape)."""
    counts = budget.of(config.layers)
    attending = config.layers - (counts.skip if config.skip_scope == "block" else 0)
    big = counts.big + config.layers - round(sum(counts))  # pinned layers too
    return float(token_flops(config, counts.small, big, attending, position).double().mean())


def token_flops(
    config: BackboneConfig, small: Tensor | float, big: Tensor | float, attending: Tensor | float, position: Tensor
) -> Tensor:
    """FLOPs of tokens that use so many small and big FFNs and attend in so many layers."""
    ffn = small * ffn_flops(config, config.small) + big * ffn_flops(config, config.big)
    attention = attending * _attention_flops(config, position)
    # keys and values in every layer: who skips a block is attended to all the same
    return config.layers * _key_value_flops(config) + attention + ffn + _head_flops(config)


def tree_flops(
    config: BackboneConfig, attended: float, small: float, big: float, leaves: float, position: Tensor
) -> float:
    """FLOPs of a search that evaluates so many parts, each on tokens at these positions (any shape)."""
    attention = _key_value_flops(config) + _attention_flops(config, position)
    ffn = small * ffn_flops(config, config.small) + big * ffn_flops(config, config.big)
    return float((attended * attention + ffn + leaves * _head_flops(config)).sum())


def _key_value_flops(config: BackboneConfig) -> int:
    return 2 * config.width * 2 * config.kv_heads * config.head_width


def _attention_flops(config: BackboneConfig, position: Tensor) -> Tensor:
    """Query, output, and position + 1 keys and values."""
    # 4: queries by keys, and weights by values, a multiply-add each
    return 2 * config.width * 2 * config.attention_width + 4 * config.attention_width * (position.double() + 1)


def _head_flops(config: BackboneConfig) -> int:
    return 2 * config.width * config.vocabulary
