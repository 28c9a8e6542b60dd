"""Which arguments of lightning.Trainer a recipe may give."""

from __future__ import annotations

import inspect
from typing import Any

from duo.routing.registry import unknown
from duo.training.loggers import check_name

STEPS, EVERY = "stage1.steps and stage3.steps", "stage1.checkpoint_every and stage3.checkpoint_every"
NOT_FOR_TRAINER = {
    **dict.fromkeys(("max_steps", "min_steps", "max_epochs", "min_epochs", "max_time", "fast_dev_run"), STEPS),
    **dict.fromkeys(("limit_train_batches", "overfit_batches"), "data.train_bytes and the stages' steps"),
    **dict.fromkeys(("gradient_clip_val", "gradient_clip_algorithm"), "stage1.grad_clip and stage3.grad_clip"),
    # callbacks and plugins are objects, which no YAML holds
    **dict.fromkeys(("callbacks", "plugins", "barebones"), "a script of your own"),
    "default_root_dir": "output and cache",
    "log_every_n_steps": "stage1.log_every and stage3.log_every",
    "enable_checkpointing": EVERY,
    "use_distributed_sampler": "duo.data, which shares every batch among the processes",
}


def check_trainer(options: dict[str, Any]) -> None:
    """Raises ValueError for what Lightning does not know, and for what a recipe sets elsewhere."""
    from lightning import Trainer  # takes seconds: only where a recipe gives options

    known = [name for name in inspect.signature(Trainer).parameters if name not in NOT_FOR_TRAINER]
    for key, value in options.items():
        if key in NOT_FOR_TRAINER:
            raise ValueError(f"trainer.{key} is set by {NOT_FOR_TRAINER[key]}")
        if key not in known:
            raise ValueError(
                unknown("argument of lightning.Trainer:", f"trainer.{key}", [f"trainer.{name}" for name in known])
            )
        if key == "logger":
            check_name(value)
        if key == "precision" and str(value).startswith("16"):
            raise ValueError(f"trainer.precision={value!r} scales gradients: use bf16-mixed, which needs no scaling")
