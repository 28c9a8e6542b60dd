"""Work that tells nothing for a while (a tokenizer is trained, a process imports torch) is shown again all the same."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from duo.progress.work import look

AGAIN = 1.0  # seconds


@contextlib.contextmanager
def beating(again: float | None = None) -> Iterator[None]:
    """Inside, the watcher is told of the work in hand every `again` seconds (AGAIN), whatever the work does."""
    end = threading.Event()

    def beat() -> None:
        while not end.wait(AGAIN if again is None else again):
            with contextlib.suppress(Exception):  # a sign of life is worth no failure
                look()

    thread = threading.Thread(target=beat, name="signs of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
