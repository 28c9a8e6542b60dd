"""Bytes that a device holds, by part, in closed form: of a step of stage 1, and of a pass without gradients.

What a backward pass needs was read off the tensors that autograd keeps (`tests/test_plan_memory.py` counts them), layer
by layer: D stands for the stream, A for the queries, K for keys or values, I for the inner width of an FFN.
"""

from __future__ import annotations

from typing import NamedTuple

from duo.backbone import BackboneConfig
from duo.backbone.head import LEAST_ROWS, WHOLE_BYTES

WIDE = 4  # bytes of float32


class Numbers(NamedTuple):
    """Bytes of numbers at one of Lightning's precisions."""

    weight: int
    """Of a weight, its gradient, and each of AdamW's two states."""
    product: int
    """Of what goes into matrix products and comes out of them."""
    stream: int
    """Of the residual stream and what norms make of it."""


def numbers_of(precision: str) -> Numbers:
    """Bytes at a precision: mixed ones keep weights and stream in 32 bits.

    >>> numbers_of("32-true"), numbers_of("bf16-mixed")
    (Numbers(weight=4, product=4, stream=4), Numbers(weight=4, product=2, stream=4))
    """
    if precision in ("bf16-mixed", "16-mixed"):
        return Numbers(WIDE, 2, WIDE)
    size = {"bf16-true": 2, "16-true": 2, "64-true": 8, "64": 8}.get(precision, WIDE)
    return Numbers(size, size, size)


class Memory(NamedTuple):
    """Bytes of one device in one stage."""

    weights: float
    gradients: float
    """With what DDP exchanges them in, where several devices do."""
    optimizer: float
    """AdamW's two states."""
    activations: float
    """What the backward pass needs."""
    checkpointed: float
    """The same where layers are computed once more in the backward pass (trainer.activation_checkpointing): of each are
    kept its input, the stream its FFNs add to, and the keys and values that a pass leaves behind."""
    again: float
    """What half a layer takes while it is computed once more; the head is gone by then."""
    logits: float
    """What the head and its loss hold at once."""
    passing: float = 0.0
    """What one layer takes while it is computed without gradients; gone before the head begins."""
    copies: float = 0.0
    """Of weights in 16 bits (mixed precisions), or of embeddings and whole layers out of shards."""
    kept: bool = False
    """Whether gradients stay while the next batch of the same step is computed."""

    def recomputing(self) -> Memory:
        """The same where layers are computed once more in the backward pass."""
        return self._replace(activations=self.checkpointed, passing=max(self.passing, self.again))

    def peak(self) -> float:
        """The most at once: activations go as gradients come."""
        held = self.activations + max(self.passing, self.logits) + (self.gradients if self.kept else 0)
        return self.weights + self.optimizer + self.copies + max(held, self.gradients)


def count_parameters(config: BackboneConfig) -> dict[str, int]:
    """Parameters by part, as `Backbone.parameter_counts` finds them."""
    layers, width, kv = config.layers, config.width, config.kv_heads * config.head_width
    qkv_bias = config.attention_width + 2 * kv if config.biased != "none" else 0
    attention = 2 * width * (config.attention_width + kv) + qkv_bias + (width if config.biased == "all" else 0)
    llama = config.family == "llama"
    norm = width if llama else 2 * width
    tables = config.vocabulary * (1 if config.tied else 2) + (0 if llama else config.positions)
    head_norms = 2 * config.head_width if config.qk_norm else 0
    return {
        "big": layers * _ffn_parameters(config, config.big),
        "small": layers * _ffn_parameters(config, config.small),
        "attention": layers * (attention + head_norms),
        "embeddings": tables * width,
        "norms": norm * (2 * layers + 1),
    }


def _ffn_parameters(config: BackboneConfig, inner: int) -> int:
    matrices = 3 if config.family == "llama" else 2
    biases = (matrices - 1) * inner + config.width if config.ffn_biased else 0
    return matrices * config.width * inner + biases


def layer_bytes(config: BackboneConfig, numbers: Numbers, p_big: float, p_small: float) -> float:
    """What the backward pass of one layer keeps of one token."""
    llama, width = config.family == "llama", config.width
    kv = config.kv_heads * config.head_width
    # the stream twice, what came out of the FFNs, and in llama both norms' inputs over their size
    stream = (5 if llama else 3) * width + (2 if llama else 4)
    # what the projections read, what the FFNs read; queries, keys, values, and what is drawn
    product = 2 * width + 2 * config.attention_width + 2 * kv
    inner = (4 if llama else 1) * (p_big * config.big + p_small * config.small)
    if config.qk_norm:  # before and over their size
        stream += 2 * (config.attention_width + kv)
    return numbers.stream * stream + numbers.product * (product + inner) + WIDE * (config.heads + 5)


def again_bytes(config: BackboneConfig, numbers: Numbers, tokens: int, p_big: float, p_small: float) -> float:
    """What half a layer holds while it is computed once more and its gradients are found: attention, or the FFNs."""
    llama, kv = config.family == "llama", config.kv_heads * config.head_width
    # what the projections read, one gradient; queries, keys, values, and what is drawn
    attention = numbers.stream * config.width + 2 * numbers.product * (config.width + config.attention_width + kv)
    # beside what is kept, two gradients at once, and the weights'
    inner = (6 if llama else 3) * numbers.product * (p_big * config.big + p_small * config.small)
    weights = _ffn_parameters(config, config.big) * numbers.weight
    return max(attention * tokens, inner * tokens + weights)


def logit_bytes(config: BackboneConfig, tokens: int, numbers: Numbers, training: bool) -> float:
    """What the head's logits and their loss hold at once: logarithms, and two gradients beside them in training."""
    rows = max(WHOLE_BYTES // (config.vocabulary * numbers.weight), LEAST_ROWS)
    # made by parts, the gradient of the head's weights is added up beside a part's own
    summed = 2 * config.vocabulary * config.width * numbers.weight if training and tokens > rows else 0
    return min(rows, tokens) * config.vocabulary * WIDE * (3 if training else 2) + summed


def training_memory(
    config: BackboneConfig, tokens: int, *, p_big: float = 0.5, p_skip: float = 0.0, precision: str = "32-true",
    devices: int = 1, sharded: bool = False, accumulate: int = 1, learning: float = 1.0,
) -> Memory:  # fmt: skip
    """A step of stage 1 on one device.

    Args:
        config: the model.
        tokens: of one batch on this device, before accumulation.
        p_big, p_skip: shares of the tokens that each layer gives to its big FFN, and to none.
        precision: Lightning's.
        devices: how many work together.
        sharded: whether weights, gradients and states are (fsdp2), instead of being on every device (ddp).
        accumulate: batches of a step.
        learning: share of the parameters that learn.
    """
    numbers, counts = numbers_of(precision), count_parameters(config)
    parameters, share = sum(counts.values()), devices if sharded else 1
    p_small = 1 - p_big - p_skip
    one_layer = layer_bytes(config, numbers, p_big, p_small) * tokens
    left = 2 * config.width * numbers.stream + 2 * config.kv_heads * config.head_width * numbers.product
    outside = tokens * (numbers.stream * 2 + numbers.product) * config.width  # the last norm
    copies = 0.0
    if sharded:
        # embeddings and their gradient all along; of layers one in use, the next on its way, and a gradient
        layer = (parameters - counts["embeddings"]) / config.layers
        copies = 2 * counts["embeddings"] * numbers.weight + 3 * layer * numbers.product
    elif numbers.product != numbers.weight:
        copies = (parameters - counts["norms"]) * numbers.product
    states = parameters * numbers.weight * learning / share
    buckets = 2 if devices > 1 and not sharded else 1
    return Memory(
        weights=parameters * numbers.weight / share,
        gradients=states * buckets,
        optimizer=2 * states,
        activations=config.layers * one_layer + outside,
        checkpointed=config.layers * tokens * left,
        again=again_bytes(config, numbers, tokens, p_big, p_small),
        logits=logit_bytes(config, tokens, numbers, training=True),
        copies=copies,
        kept=accumulate > 1,
    )


def evaluation_memory(config: BackboneConfig, tokens: int, precision: str = "32-true", p_big: float = 1.0) -> Memory:
    """A pass without gradients over so many tokens at once: whole weights, every layer's keys and values, one layer."""
    numbers = numbers_of(precision)
    kv = config.kv_heads * config.head_width
    pairs = tokens * config.layers * 2.0 * kv * numbers.stream
    inner = (3 if config.family == "llama" else 2) * p_big * config.big
    passing = tokens * numbers.stream * (4 * config.width + inner)
    weights = float(sum(count_parameters(config).values()) * WIDE)
    logits = logit_bytes(config, tokens, numbers, training=False)
    return Memory(weights, 0.0, 0.0, pairs, pairs, 0.0, logits, passing)
