"""What a recipe may say of training beside steps and rates: arguments of lightning.Trainer, and two knobs of duo's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, get_args

import torch

from duo.backbone import Backbone
from duo.backbone.dense import PLAIN, Dense, compiled
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


OURS = ("compile", "activation_checkpointing")
"""What is duo's own, and not Lightning's."""


def check_trainer(options: dict[str, Any]) -> None:
    """Raises ValueError for what neither Lightning nor duo knows, for what a recipe sets elsewhere, and bad values."""
    from lightning import Trainer  # takes seconds: only where a recipe gives options

    known = [*(name for name in inspect.signature(Trainer).parameters if name not in NOT_FOR_TRAINER), *OURS]
    for key, value in options.items():
        if key in NOT_FOR_TRAINER:
            raise ValueError(f"trainer.{key} is set by {NOT_FOR_TRAINER[key]}")
        if key not in known:
            raise ValueError(
                unknown("argument of lightning.Trainer:", f"trainer.{key}", [f"trainer.{name}" for name in known])
            )
        if key in CHECKS:
            CHECKS[key](value)


def _check_precision(value: Any) -> None:
    from lightning.fabric.plugins.precision import precision

    names = [*get_args(precision._PRECISION_INPUT_STR), *get_args(precision._PRECISION_INPUT_STR_ALIAS)]
    if value is not None and str(value) not in names:
        raise ValueError(unknown("precision", f"trainer.precision={value}", [f"trainer.precision={n}" for n in names]))
    if str(value) == "16-true":
        raise ValueError(
            "trainer.precision=16-true keeps weights in float16, in which small steps vanish: use 16-mixed, or "
            "bf16-mixed"
        )


def _check_accumulation(value: Any) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"trainer.accumulate_grad_batches={value!r} must be a whole number, at least 1")


def _check_compile(value: Any) -> None:
    if not isinstance(value, bool | str | None):
        raise ValueError(f"trainer.compile={value!r} must be true, false or a backend of torch.compile")
    if isinstance(value, str):
        backends = torch.compiler.list_backends(exclude_tags=())
        if value not in backends:
            raise ValueError(
                unknown(
                    "backend of torch.compile:", f"trainer.compile={value}", [f"trainer.compile={n}" for n in backends]
                )
            )


def _check_checkpointing(value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"trainer.activation_checkpointing={value!r} must be true or false")


def _check_strategy(value: Any) -> None:
    from duo.training.strategies import check_strategy  # here: Lightning takes seconds to import

    check_strategy(value)


CHECKS: dict[str, Callable[[Any], None]] = {
    "logger": check_name,
    "precision": _check_precision,
    "strategy": _check_strategy,
    "accumulate_grad_batches": _check_accumulation,
    "compile": _check_compile,
    "activation_checkpointing": _check_checkpointing,
}


def check_device(options: dict[str, Any], device: torch.device) -> None:
    """Raises ValueError for what a recipe may say, but not of this device."""
    precision = str(options.get("precision"))
    if precision in ("16", "16-mixed") and device.type == "cpu":
        raise ValueError(
            f"trainer.precision={precision} needs a GPU (on a CPU Lightning would take bfloat16 instead): "
            "use bf16-mixed"
        )


def dense_of(options: dict[str, Any]) -> Dense:
    """How the options want the dense parts of a backbone to be run.

    >>> dense_of({"compile": True, "precision": "bf16-mixed"})
    Dense(backend='inductor', checkpointed=False)
    """
    backend = options.get("compile") or None
    return Dense("inductor" if backend is True else backend, bool(options.get("activation_checkpointing")))


@contextmanager
def running_dense(backbone: Backbone, options: dict[str, Any], device: torch.device) -> Iterator[None]:
    """Runs the dense parts of a backbone as the options want, inside; nothing of it stays.

    Raises:
        ValueError: torch.compile does not work on this machine.
    """
    dense = dense_of(options)
    if dense.backend is not None:
        _try_backend(dense.backend, device)
    backbone.dense = dense
    try:
        yield
    finally:
        backbone.dense = PLAIN


@lru_cache(None)
def _try_backend(backend: str, device: torch.device) -> None:
    """Compiles something small: what fails within a router's loss would be laid at the router's door."""
    try:
        compiled(_probe, backend)(torch.ones(2, device=device))
    except Exception as error:  # every backend has its own
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"trainer.compile={backend} does not work here ({reason}): inductor needs a C++ compiler on a CPU and "
            "triton on a GPU; leave it out"
        ) from error


def _probe(x_N: torch.Tensor) -> torch.Tensor:
    return x_N.sigmoid() + x_N
