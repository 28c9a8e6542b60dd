"""Keys that had other names once."""

from __future__ import annotations


class OldKey(ValueError):
    """A recipe uses a name that its key had once: it was written for an older duo."""


TRAINING = {"rate": "learning_rate", "warmup": "warmup_steps", "final": "min_lr_ratio", "clip": "grad_clip"}
RENAMED = {
    "whole": "full_holdout",
    **{f"{stage}.{old}": f"{stage}.{new}" for stage in ("stage1", "stage3") for old, new in TRAINING.items()},
}
