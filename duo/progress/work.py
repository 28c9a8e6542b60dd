"""What is being done, within what; told by those who do it, with one line each."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Watcher(Protocol):
    """Who is told of work."""

    def now(self) -> float:
        """Seconds, from whenever on."""

    def look(self, parts: Sequence[Part]) -> None:
        """Takes what is being done, the outermost first; called very often."""

    def rest(self) -> None:
        """Nothing is being counted any more."""


class Part:
    """Something that is being done: it has a name, and is counted where it is known of how much.

    Args:
        name: a noun, or what the work inside is at.
        total: how much there is to do; None: nobody knows.
        since: when it began.
        counted: whether `done` says anything.
        at_most: whether it may end before all is done.
    """

    def __init__(self, name: str, total: float | None, since: float, counted: bool, at_most: bool) -> None:
        self.name, self.total, self.since, self.counted, self.at_most = name, total, since, counted, at_most
        self.done = self.begun = 0.0
        self.ahead = 0  # 1: what is counted is the item in hand, not those that are done
        self.note = ""

    def step(self, count: float = 1) -> None:
        """So much more is done."""
        self.done += count
        look()

    def go_on(self, done: float, note: str | None = None) -> None:
        """So much is done in all; `note` is shown behind it from now on."""
        self.done, self.note = done, self.note if note is None else note
        look()

    def begin(self, done: float) -> None:
        """Begins now, where so much was done at another time."""
        self.done = self.begun = done
        self.since = _watcher.now() if _watcher else 0.0


_watcher: Watcher | None = None
_parts: list[Part] = []
_showing = threading.RLock()  # of the work's thread and that of `beat`, one shows
if hasattr(os, "register_at_fork"):  # a process that is forked meanwhile would wait for ever
    os.register_at_fork(before=_showing.acquire, after_in_parent=_showing.release, after_in_child=_showing.release)


@contextmanager
def watching(watcher: Watcher | None) -> Iterator[None]:
    """Inside, `watcher` alone is told of work that begins; None: nobody is."""
    global _watcher, _parts
    before = _watcher, _parts
    _watcher, _parts = watcher, []
    try:
        yield
    finally:
        with _showing:
            _watcher, _parts = before
            if watcher is not None:
                watcher.rest()


@contextmanager
def at(name: str) -> Iterator[None]:
    """Names what the work inside is at: a row, a hold-out."""
    with _within(name, None, counted=False):
        yield


@contextmanager
def count(name: str, total: float | None, at_most: bool = False) -> Iterator[Part]:
    """Work that is counted by whoever does it, with `step` or `go_on`."""
    with _within(name, total, at_most=at_most) as part:
        yield part


def track(items: Iterable[T], name: str, total: int | None = None, at_most: bool = False) -> Iterator[T]:
    """The items, counted while they are worked on.

    Args:
        items: whatever a loop goes over.
        name: what each of them is.
        total: how many there are; default: as many as `items` has, if it says so.
        at_most: whether the loop may end before its last item.

    >>> list(track("abc", "letter"))
    ['a', 'b', 'c']
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with _within(name, total, at_most=at_most) as part:
        part.ahead = 1
        for item in items:
            yield item
            part.step()


@contextmanager
def _within(name: str, total: float | None, counted: bool = True, at_most: bool = False) -> Iterator[Part]:
    part, parts, watcher = Part(name, total, _watcher.now() if _watcher else 0.0, counted, at_most), _parts, _watcher
    parts.append(part)
    try:
        yield part
    finally:
        with _showing:
            # what an exception left inside it ends with it; a generator may be closed later than what it lay in
            if part in parts:
                del parts[parts.index(part) :]
            if watcher is not None and not any(part.counted for part in parts):
                watcher.rest()


def look() -> None:
    """Tells the watcher what is being done."""
    with _showing:
        if _watcher is not None and _parts:
            _watcher.look(_parts)
