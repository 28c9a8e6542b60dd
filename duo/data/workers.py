"""Processes beside this one that make items for it."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from duo.storage.signals import SIGNALS

AHEAD = 4  # items that each worker makes before they are asked for


def in_workers(items: Dataset[Any], workers: int) -> Iterator[Any]:
    """Items made by other processes, which leave signals and torch's generator to this one."""
    others = {*multiprocessing.active_children()}
    loader = DataLoader(
        items, batch_size=None, num_workers=workers, prefetch_factor=AHEAD, collate_fn=_same,
        worker_init_fn=_leave_signals, generator=torch.Generator(),
    )  # fmt: skip
    before = signal.getsignal(signal.SIGCHLD)
    made = iter(loader)
    if threading.current_thread() is threading.main_thread():
        # torch would tell of a worker's end by an exception at any line; the next batch tells it too
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    for process in {*multiprocessing.active_children()} - others:
        atexit.register(process.kill)  # multiprocessing would ask them by a signal, and wait for ever
    return made


def _same(item: Any) -> Any:
    return item


def _leave_signals(worker: int) -> None:
    """What asks a run to stop asks its chief process, which ends the others when it may."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as its library does behind a fork, with a warning
