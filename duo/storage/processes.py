"""Several processes that work on one run, and the one among them that writes and speaks."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch

LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS")
_rank = 0


def is_distributed() -> bool:
    """Whether torch.distributed is initialised."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def rank_and_world() -> tuple[int, int]:
    """Which process this is, and how many there are."""
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if is_distributed() else (0, 1)


def agree(answer: bool) -> bool:
    """The chief process's answer, on all processes: what one of them sees on the disk, another may not see yet."""
    answers = [answer]
    if is_distributed():
        torch.distributed.broadcast_object_list(answers)
    return answers[0]


def is_chief() -> bool:
    """Whether this process is the only one, or the one of several that writes and speaks."""
    return (torch.distributed.get_rank() if is_distributed() else _rank) == 0


def join(rank: int) -> None:
    """Says which process this is of those that work on the run, before torch.distributed knows."""
    global _rank
    _rank = rank


def launched_as() -> dict[str, int]:
    """What the variables that launchers set say of this process; those that are not set are left out.

    Raises:
        ValueError: one of them is no number.
    """
    found = {}
    for name in LAUNCHERS:
        if said := os.environ.get(name):
            if not said.isdecimal():
                raise ValueError(f"{name}={said!r} in the environment is no number: {on_its_own([name])}")
            found[name] = int(said)
    return found


def on_its_own(variables: Iterable[str]) -> str:
    """How to start a run that is not one of several processes."""
    unset = " ".join(f"-u {name}" for name in variables)
    return f"for a run on its own type env {unset} in front of the command"
