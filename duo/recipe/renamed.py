"""Keys that had other names once, and keys that are gone."""

from __future__ import annotations


class OldKey(ValueError):
    """A recipe uses a key that is called otherwise by now, or is gone: it was written for an older duo."""


TRAINING = {"rate": "learning_rate", "warmup": "warmup_steps", "final": "min_lr_ratio", "clip": "grad_clip"}
RENAMED = {
    "whole": "full_holdout",
    **{f"{stage}.{old}": f"{stage}.{new}" for stage in ("stage1", "stage3") for old, new in TRAINING.items()},
}
REMOVED = {
    "null_draws": "what can be known without the label is measured by recipe=ladder6, from routes that do not see it",
}
"""Keys that are gone, and what is in their place."""
