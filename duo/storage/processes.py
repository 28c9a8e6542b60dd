"""Several processes that work on one run, and the one among them that writes and speaks."""

from __future__ import annotations

import os

import torch


def is_distributed() -> bool:
    """Whether torch.distributed is initialised."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def agree(answer: bool) -> bool:
    """The chief process's answer, on all processes: what one of them sees on the disk, another may not see yet."""
    answers = [answer]
    if is_distributed():
        torch.distributed.broadcast_object_list(answers)
    return answers[0]


def is_chief() -> bool:
    """Whether this process is the only one, or the one of several that writes and speaks."""
    # asked before torch.distributed is up: set by torchrun, by SLURM, by Lightning's launcher
    return not int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or os.environ.get("LOCAL_RANK") or 0)
