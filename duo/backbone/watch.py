"""Who is told of the passes that are made while a router's code runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from duo.backbone.block import Gate
    from duo.backbone.model import Backbone, Run


class Watcher(Protocol):
    """Whoever counts what passes cost."""

    def charge_pass(self, backbone: Backbone, start: int, gate: Gate, run: Callable[[Gate], Run]) -> Run:
        """Makes the pass, whose first token stands at position `start`, and charges it."""


class _Here(threading.local):
    """Who watches a thread; a thread that nobody has spoken for is watched by whoever watches strangers."""

    known = False
    watcher: Watcher | None = None


_here = _Here()
_strangers: list[Watcher] = []


def watcher() -> Watcher | None:
    """Who is told of a pass that begins now, in this thread."""
    if _here.known:
        return _here.watcher
    return _strangers[-1] if _strangers else None


@contextmanager
def watched(by: Watcher | None) -> Iterator[None]:
    """This thread's passes are charged to `by`, or to nobody."""
    before = _here.known, _here.watcher
    _here.known, _here.watcher = True, by
    try:
        yield
    finally:
        _here.known, _here.watcher = before


@contextmanager
def strangers_watched(by: Watcher) -> Iterator[None]:
    """Passes in threads that a router starts are charged to `by`; this thread's own are not."""
    _strangers.append(by)
    try:
        with watched(None):
            yield
    finally:
        _strangers.remove(by)
