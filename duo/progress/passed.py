"""What a process says to the one that waits for it: how much is done, in a file."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from duo.progress.shown import share_of
from duo.progress.work import Part

FILE = "progress"
AGAIN = 1.0  # seconds
CAREFUL = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)  # no pipe is waited for, no link followed


class Passing:
    """Writes how much is done into a folder, every second at most."""

    def __init__(self, folder: Path) -> None:
        self._file, self._next = folder / FILE, 0.0

    def now(self) -> float:
        """Seconds, from whenever on."""
        return time.monotonic()

    def look(self, parts: Sequence[Part]) -> None:
        """Writes it, if it is time."""
        if (now := self.now()) >= self._next:
            self._next = now + AGAIN
            with contextlib.suppress(OSError):  # a sign of life is worth no failure
                self._file.write_text(f"{share_of(parts):.4f}")

    def rest(self) -> None:
        """What was written stays."""


def read_share(folder: Path) -> float:
    """What another process says of itself, from 0 to 1; 0 where it says nothing that could be so."""
    with contextlib.suppress(OSError, ValueError):
        file = os.open(folder / FILE, os.O_RDONLY | CAREFUL)
        try:
            share = float(os.read(file, 16))
        finally:
            os.close(file)
        return share if 0 <= share <= 1 else 0.0
    return 0.0
