"""The shape of a duo backbone."""

from __future__ import annotations

import math
from dataclasses import dataclass

MODULES = ("skip", "small", "big")  # in this order in every route, weight and count
SKIP, SMALL, BIG = range(len(MODULES))
FORMAT = 1  # raised by every change that alters the weights a training gives, or their names


@dataclass(frozen=True)
class BackboneConfig:
    """Shape of a duo backbone.

    Raises:
        ValueError: sizes below 1, heads that do not divide the width, an unknown family or skip scope.
    """

    family: str = "llama"
    """Block: `llama` (RMSNorm, rotary positions, SwiGLU) or `opt` (LayerNorm, learned positions, ReLU, biases)."""
    layers: int = 12
    """Layers, each with a big and a small FFN."""
    width: int = 64
    """Width of the residual stream."""
    heads: int = 2
    """Query heads of the attention."""
    key_value_heads: int | None = None
    """Key and value heads; fewer than `heads` is grouped-query attention (null: as many as `heads`)."""
    big: int = 256
    """Inner width of the big FFN."""
    small: int = 16
    """Inner width of the small FFN."""
    vocabulary: int = 2048
    """Tokens of the vocabulary; the tokenizer is trained to this size."""
    positions: int = 2048
    """Longest sequence in tokens; `opt` learns a vector for each position, `llama` does not look at this."""
    tied: bool = True
    """Whether the output head shares the embedding's weights."""
    skip_scope: str = "ffn"
    """What a skip bypasses: `ffn` (attention stays) or `block` (only keys and values stay)."""
    rotary_base: float = 10000.0
    """Base of the rotary frequencies (`llama`)."""
    norm_epsilon: float = 1e-5
    """Added to the variance in every norm."""

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "big", "small", "vocabulary", "positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"backbone.{name}={getattr(self, name)} must be at least 1")
        for name in ("rotary_base", "norm_epsilon"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"backbone.{name}={getattr(self, name)} must be a positive number")
        for name, known in (("family", ("llama", "opt")), ("skip_scope", ("ffn", "block"))):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"backbone.{name}={getattr(self, name)!r} is unknown: choose one of {', '.join(known)}"
                )
        if self.width % self.heads:
            raise ValueError(f"backbone.heads={self.heads} must divide backbone.width={self.width}")
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ValueError(f"backbone.key_value_heads={self.key_value_heads} must divide backbone.heads={self.heads}")
        if self.family == "llama" and self.head_width % 2:
            raise ValueError(
                f"backbone.width={self.width} / heads={self.heads} must be even: rotary positions turn pairs"
            )

    @property
    def kv_heads(self) -> int:
        """Key and value heads."""
        return self.heads if self.key_value_heads is None else self.key_value_heads

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads
