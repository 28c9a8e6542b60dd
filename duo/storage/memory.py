"""Memory: what is freed stays with the process, and its end takes nothing apart."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
NEVER = 2**31 - 1
CHOSEN = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Has glibc keep what is freed for the next step; returns whether it does.

    Every training step frees and takes the same tensors. By itself glibc gives some of them back to the system, which
    fills the same pages with zeros again: 5 to 8 % of a step at D=64, more where the heap lies badly (`LOG.md`,
    2026-11-29). Nothing is changed where somebody has chosen by the environment, nor under another C library.
    """
    if any(name in os.environ for name in CHOSEN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # TypeError: Windows has no library without a name
        return False
    # older versions take 32 MiB at most; one of the two alone makes it worse, for then glibc adapts neither
    mapped = mallopt(MMAP_THRESHOLD, 1 << 30) or mallopt(MMAP_THRESHOLD, 32 << 20)
    return bool(mapped and mallopt(TRIM_THRESHOLD, NEVER))


def end_quickly() -> None:
    """Has the interpreter's end look for no garbage, of which torch and Lightning leave seconds of work behind.

    The system takes the memory back all the same. Whatever else belongs to an end is done: functions of `atexit`,
    threads that are waited for, files that are written to the disk, the exit status (`LOG.md`, 2026-11-30).
    """
    atexit.register(gc.freeze)  # no sooner: a script that calls a command goes on behind it
