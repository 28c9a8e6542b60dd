"""FLOPs of training steps, in closed form: forward, and the products of the backward pass."""

from __future__ import annotations

import torch

from duo.backbone import BackboneConfig, Counts
from duo.backbone.flops import budget_flops, ffn_flops
from duo.backbone.head import LEAST_ROWS, WHOLE_BYTES
from duo.training.config import Stage1Part


def stage1_flops(config: BackboneConfig, stage: Stage1Part, tokens: int, batch: int, twice: bool = False) -> float:
    """FLOPs a token of a step of stage 1, forward and backward.

    Args:
        config: the model.
        stage: how it is trained.
        tokens: of a sequence.
        batch: tokens whose loss one device computes at once: large logits are made anew for their gradients.
        twice: whether layers are computed once more in the backward pass.
    """
    layers = config.layers
    big, skip = stage.p_big * layers, stage.p_skip * layers
    # as counts, which may be fractions: a mean over tokens is linear in them
    forward = budget_flops(config, Counts(skip, layers - big - skip, big), torch.arange(tokens))
    head = 2 * config.width * config.vocabulary
    again = head if batch > max(WHOLE_BYTES // (config.vocabulary * 4), LEAST_ROWS) else 0
    # of a product, each of two gradients costs what it costs itself; of weights that are frozen one is not needed
    small = (layers - big - skip) * ffn_flops(config, config.small)
    scores = layers * 4 * config.attention_width * (tokens + 1) / 2  # queries by keys, and what they draw: no weights
    frozen = {"all": 0.0, "big": small, "small": forward - small - scores}[stage.learn]
    return 3 * forward + (forward - head if twice else 0) + again - frozen
