"""Several processes that work on one run, and the one among them that writes and speaks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch

PARENT = os.getppid()  # of a process that Lightning started: the first one of its machine
LOST = "another process of this run has ended (killed, or by an error of its own): the same command goes on"
LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS")
_rank = 0
_told = threading.Event()


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


def whole(value: torch.Tensor) -> torch.Tensor:
    """A tensor of which every process holds a shard, whole, by all processes at once; any other as it is."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def is_chief() -> bool:
    """Whether this process is the only one, or the one of several that writes and speaks."""
    return (torch.distributed.get_rank() if is_distributed() else _rank) == 0


@contextmanager
def naming_lost() -> Iterator[None]:
    """What torch says inside of a process that is gone becomes one line, from one of those that are left.

    Raises:
        ValueError: another process of the run has ended.
        SystemExit: the same, and the first process says so.
    """
    try:
        yield
    except Exception as error:
        if not (is_distributed() and _is_lost(error)):
            raise
        orphan = os.environ.get("LOCAL_RANK") == "1" and os.getppid() != PARENT
        if not (is_chief() or orphan):
            raise SystemExit(1) from error
        _told.set()
        raise ValueError(LOST) from error


def end_without_the_others() -> NoReturn:
    """Ends this process from any thread, whatever it waits for; says why, if that is not being said already."""
    if not _told.is_set():
        os.write(2, f"error: {LOST}\n".encode())
    os._exit(1)


def _is_lost(error: BaseException | None) -> bool:
    """Whether an error, or one that it was made of, is of the connection to another process."""
    while error is not None:
        # gloo has no error of its own
        if isinstance(error, torch.distributed.DistError) or "gloo" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


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
