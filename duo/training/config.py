"""How a stage is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from duo.backbone import Budget

LEARN = ("all", "big", "small")


@dataclass(frozen=True)
class TrainingConfig:
    """Steps, learning rate and regularisation of one stage.

    Raises:
        ValueError: no steps, or a learning rate, ratio or norm out of range.
    """

    section: ClassVar[str] = "training"

    steps: int = 1000
    """Optimizer steps."""
    learning_rate: float = 6e-3
    """Learning rate at its highest."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises linearly from 0."""
    min_lr_ratio: float = 0.1
    """Share of the highest learning rate at which the cosine ends."""
    weight_decay: float = 0.1
    """AdamW's weight decay, on matrices alone."""
    grad_clip: float = 1.0
    """Largest norm of the gradient (0: not clipped)."""
    checkpoint_every: int = 100
    """Steps between checkpoints; a killed run loses at most so many."""
    log_every: int = 10
    """Steps between points of the logs and of the progress bar."""

    def __post_init__(self) -> None:
        for name in ("steps", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{self.section}.{name}={getattr(self, name)} must be at least 1")
        for name in ("learning_rate", "warmup_steps", "min_lr_ratio", "weight_decay", "grad_clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{self.section}.{name}={getattr(self, name)} must be a finite number, 0 or more")

    def factor(self, step: int) -> float:
        """What the rate is multiplied with at a step: linear warm-up, then a cosine down to `min_lr_ratio`.

        >>> config = TrainingConfig(steps=100, warmup_steps=10, min_lr_ratio=0.1)
        >>> [round(config.factor(step), 3) for step in (0, 9, 55, 100)]
        [0.1, 1.0, 0.55, 0.1]
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps  # + 1: the first step learns too
        done = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * (1 + math.cos(math.pi * min(done, 1))) / 2


@dataclass(frozen=True)
class Stage1Part(TrainingConfig):
    """A backbone under random routing."""

    section: ClassVar[str] = "stage1.before"

    p_big: float = 0.5
    """Probability of the big FFN at each layer of each token."""
    p_skip: float = 0.0
    """Probability of a skip at each layer of each token; what is left is small."""
    learn: str = "all"
    """Which parameters learn: `all`; `big`: all but the small FFNs; `small`: the small FFNs alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.p_big + self.p_skip > 1 or min(self.p_big, self.p_skip) < 0:
            chances = f"{self.section}.p_big={self.p_big} and {self.section}.p_skip={self.p_skip}"
            raise ValueError(f"{chances} must be probabilities of sum at most 1")
        if self.learn not in LEARN:
            raise ValueError(f"{self.section}.learn={self.learn!r} is unknown: choose one of {', '.join(LEARN)}")
        if self.learn == "small" and self.p_big + self.p_skip == 1:
            raise ValueError(
                f"{self.section}.learn=small trains nothing where no token runs a small FFN: "
                f"lower {self.section}.p_big={self.p_big}"
            )


@dataclass(frozen=True)
class Stage1Config(Stage1Part):
    """Stage 1: the backbone under random routing (section 2 of the paper), in one part or in two (figure 8c)."""

    section: ClassVar[str] = "stage1"

    before: Stage1Part | None = None
    """A first part of the training: this one begins with its weights, and behind its data (null: none)."""


@dataclass(frozen=True)
class Stage3Config(TrainingConfig):
    """Stage 3: the router on a trained backbone (section 2 of the paper)."""

    section: ClassVar[str] = "stage3"

    steps: int = 300
    """Optimizer steps."""
    learning_rate: float = 1e-2
    """Learning rate at its highest."""
    weight_decay: float = 0.0
    """AdamW's weight decay, on matrices alone."""
    batch_size: int | None = None
    """Sequences per optimizer step (null: data.batch_size)."""
    freeze_backbone: bool = True
    """Whether the backbone stays as stage 1 left it."""
    budget: Budget | None = None
    """Budget the router is trained at, if another than it is calibrated and scored at (null: the recipe's)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"stage3.batch_size={self.batch_size} must be at least 1, or null")
        if self.budget is not None and self.budget.pinned:
            raise ValueError(f"stage3.budget.pinned={self.budget.pinned} is budget.pinned everywhere: leave it out")
        if self.budget is not None and not self.freeze_backbone:
            raise ValueError("stage3.budget needs stage3.freeze_backbone=true: a backbone is tuned for one budget")
