"""The shape of a duo backbone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

MODULES = ("skip", "small", "big")  # in this order in every route, weight and count
SKIP, SMALL, BIG = range(len(MODULES))
FAMILIES, SCOPES = ("llama", "opt"), ("ffn", "block")
BIASES, SCALINGS = (None, "none", "qkv", "all"), ("none", "linear", "llama3")
FORMAT = 1  # raised by every change that alters the weights a training gives, or their names


@dataclass(frozen=True)
class BackboneConfig:
    """Shape of a duo backbone.

    Raises:
        ValueError: sizes below 1, heads that do not divide the width, an unknown family, skip scope, bias or scaling.
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

    head_dim: int | None = None
    """Width of one attention head (null: `width` / `heads`)."""
    attention_bias: str | None = None
    """Biases of the attention: `none`, `qkv` (query, key, value), `all` (null: `all` in `opt`, `none` in `llama`)."""
    ffn_bias: bool | None = None
    """Whether the FFNs have biases (null: in `opt` they have, in `llama` not)."""
    qk_norm: bool = False
    """Whether queries and keys are normed head by head before they are turned (Qwen3)."""
    unrotated: list[int] = field(default_factory=list)
    """Layers without rotary positions, from 0 on (SmolLM3)."""
    rotary_scaling: str = "none"
    """How rotary frequencies are slowed for long sequences: `none`, `linear` (all) or `llama3` (the slow ones)."""
    rotary_factor: float = 1.0
    """What the slowed frequencies are divided by."""
    rotary_low: float = 1.0
    """Turns within `rotary_positions` below which a frequency is slowed whole (`llama3`)."""
    rotary_high: float = 4.0
    """Turns within `rotary_positions` above which a frequency stays (`llama3`)."""
    rotary_positions: int = 8192
    """Positions that the frequencies were made for (`llama3`)."""
    window: int | None = None
    """Longest sequence that is attended to whole: a model with sliding windows is none beyond (null: no limit)."""

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "big", "small", "vocabulary", "positions", "rotary_positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"backbone.{name}={getattr(self, name)} must be at least 1")
        for name in ("head_dim", "window"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"backbone.{name}={getattr(self, name)} must be at least 1, or null")
        for name in ("rotary_base", "norm_epsilon", "rotary_factor", "rotary_low", "rotary_high"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"backbone.{name}={getattr(self, name)} must be a positive number")
        self._check_names()
        self._check_heads()
        self._check_rotary()

    def _check_names(self) -> None:
        known = {"family": FAMILIES, "skip_scope": SCOPES, "attention_bias": BIASES, "rotary_scaling": SCALINGS}
        for name, names in known.items():
            if getattr(self, name) not in names:
                choices = ", ".join("null" if each is None else each for each in names)
                raise ValueError(f"backbone.{name}={getattr(self, name)!r} is unknown: choose one of {choices}")

    def _check_heads(self) -> None:
        if self.head_dim is None and self.width % self.heads:
            raise ValueError(
                f"backbone.heads={self.heads} must divide backbone.width={self.width}, or backbone.head_dim be given"
            )
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ValueError(f"backbone.key_value_heads={self.key_value_heads} must divide backbone.heads={self.heads}")

    def _check_rotary(self) -> None:
        if self.family == "llama" and self.head_width % 2:
            given = f"head_dim={self.head_dim}" if self.head_dim else f"width={self.width} / heads={self.heads}"
            raise ValueError(f"backbone.{given} must be even: rotary positions turn pairs")
        if self.rotary_scaling == "llama3" and self.rotary_low >= self.rotary_high:
            raise ValueError(
                f"backbone.rotary_low={self.rotary_low} must be below backbone.rotary_high={self.rotary_high}"
            )
        for layer in self.unrotated:
            if not 0 <= layer < self.layers:
                raise ValueError(f"backbone.unrotated={layer} is no layer: there are 0 to {self.layers - 1}")
        if self.family == "opt" and (self.unrotated or self.rotary_scaling != "none"):
            raise ValueError(
                "backbone.family=opt has no rotary positions: leave backbone.unrotated and backbone.rotary_scaling out"
            )

    @property
    def kv_heads(self) -> int:
        """Key and value heads."""
        return self.heads if self.key_value_heads is None else self.key_value_heads

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads if self.head_dim is None else self.head_dim

    @property
    def attention_width(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_width

    @property
    def limit(self) -> tuple[float, str]:
        """Tokens of the longest sequence, and the setting that says so; infinity where none does."""
        limits = {"positions": self.positions if self.family == "opt" else None, "window": self.window}
        return min(((most, f"backbone.{name}") for name, most in limits.items() if most), default=(math.inf, ""))

    @property
    def biased(self) -> str:
        """Biases of the attention: `none`, `qkv` or `all`."""
        return self.attention_bias or ("all" if self.family == "opt" else "none")

    @property
    def ffn_biased(self) -> bool:
        """Whether the FFNs have biases."""
        return self.family == "opt" if self.ffn_bias is None else self.ffn_bias
