"""Signals that ask a process to stop: it ends at once, or where its work is safe."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")  # Ctrl-C, a scheduler's end, SLURM's warning that the end is near
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
AGAIN = 0.02  # seconds after which a signal that was lost comes again
PATIENCE = 5.0  # seconds after which a further signal ends a process that has not ended yet


class Stopped(BaseException):
    """A signal asked the process to stop; like KeyboardInterrupt, no `except Exception` takes it for a mistake."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.name = signal.Signals(number).name


class Asked:
    """Notes the first signal. A later one ends the process, but not one that comes along with the first."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._since = 0.0

    def listen(self) -> None:
        """Takes the signals from now on, but for those that are ignored (as `nohup` does)."""
        _handle({number: self.note for number in _heard()})

    def note(self, number: int, frame: FrameType | None = None) -> bool:
        """Whether it is the first one."""
        if self.number is None:
            self.number, self._since = number, time.monotonic()
            return True
        if time.monotonic() - self._since > PATIENCE:  # launchers forward a Ctrl-C that arrived already
            os._exit(128 + number)  # what is kept survives a kill
        return False


def end_at_once() -> None:
    """From now on a signal ends the process: before a command has begun there is nothing to lose."""

    def end(number: int, frame: FrameType | None) -> None:
        if os.environ.get("LOCAL_RANK") in (None, "", "0"):  # the others are many
            os.write(2, f"stopped by {signal.Signals(number).name}; the same command goes on\n".encode())
        os._exit(128 + number)

    _handle(dict.fromkeys(_heard(), end))


@contextmanager
def stopping() -> Iterator[None]:
    """Inside, the first signal raises Stopped in the main thread; whatever becomes of it there, Stopped comes out."""
    asked, before = Asked(), sys.unraisablehook

    def stop(number: int, frame: FrameType | None) -> None:
        if asked.note(number):
            raise Stopped(number)

    def tell(lost: sys.UnraisableHookArgs) -> None:
        if not isinstance(lost.exc_value, Stopped):
            before(lost)
            return
        # the signal came in a destructor or a weak reference's callback, behind whose exceptions Python goes on
        asked.number = None
        again = threading.Timer(AGAIN, send, (lost.exc_value.number,))
        again.daemon = True
        again.start()

    def send(number: int) -> None:
        if sys.unraisablehook is tell:  # else it is behind
            os.kill(os.getpid(), number)

    with _restoring():
        sys.unraisablehook = tell
        _handle(dict.fromkeys(_heard(), stop))
        try:
            yield
        except Exception as error:
            if asked.number is None:
                raise
            raise Stopped(asked.number) from error  # libraries in C make other errors of it
        if asked.number is not None:
            raise Stopped(asked.number)  # somebody took such an error for a mistake


@contextmanager
def waiting() -> Iterator[Asked]:
    """Inside, signals are noted, for code that an exception from nowhere would break; behind it Stopped is raised.

    Whoever works inside looks at what is yielded from time to time, and ends where nothing is lost.
    """
    asked = Asked()
    with _restoring():
        asked.listen()
        yield asked
    if asked.number is not None:
        raise Stopped(asked.number)


def _heard() -> list[int]:
    """The signals that are not ignored."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def _handle(handlers: Mapping[int, Any]) -> None:
    if threading.current_thread() is threading.main_thread():  # Python lets no other thread set them
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)  # none: it was not set from Python


@contextmanager
def _restoring() -> Iterator[None]:
    """Sets the handlers of before again at the end, and the hook of exceptions that nobody can catch."""
    before, hook = {number: signal.getsignal(number) for number in SIGNALS}, sys.unraisablehook
    try:
        yield
    finally:
        _handle(before)
        sys.unraisablehook = hook
