"""How work is shown: on a terminal as one line that changes, elsewhere as lines of a log, now and then."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from duo.progress.start import speak
from duo.progress.work import Part, Watcher

AGAIN = 0.5  # seconds until a terminal's line is drawn again: a drawing takes about a thousandth
LOGGED = 10.0  # seconds between two lines of a log
BAR, NARROW = 8, 60  # columns: of the bar, and of a terminal that has room for none

log = logging.getLogger(__name__)
Clock = Callable[[], float]


def watcher_of(console: Console, clock: Clock = time.monotonic) -> Watcher:
    """Who shows work on the console, be it a terminal, a file or a notebook."""
    # not is_terminal alone: what asks for colours in a file has no line that could change
    live = console.is_terminal and console.file.isatty() and not console.is_dumb_terminal and not console.is_jupyter
    return Line(console, clock) if live else Lines(clock)


class Lines:
    """A line of the log every ten seconds at most, none before ten have passed."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.now, self._next = clock, clock() + LOGGED

    def look(self, parts: Sequence[Part]) -> None:
        """Logs a line, if it is time."""
        if (now := self.now()) >= self._next:
            self._next = now + LOGGED
            log.info("%s  %s", tell_share(parts, now), tell_work(parts))

    def rest(self) -> None:
        """Nothing is left to be cleared away."""


class Line:
    """One line at the bottom of a terminal, which goes when the work does."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self._console, self.now = console, clock
        self._live: Live | None = None
        self._next: float | None = None

    def look(self, parts: Sequence[Part]) -> None:
        """Draws the line anew, if it is time."""
        now = self.now()
        if self._next is None:
            self._next = _first(parts).since + AGAIN  # what is done at once is not shown
        if now >= self._next:
            self._next = now + AGAIN
            self._draw(parts, now)

    def rest(self) -> None:
        """Takes the line away."""
        self._next, live, self._live = None, self._live, None
        if live is not None:
            live.stop()

    def _draw(self, parts: Sequence[Part], now: float) -> None:
        speak()
        if self._live is None:
            # no thread of rich's: an end of the process leaves none behind
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
            self._console.show_cursor(True)  # a killed process would leave the terminal without one
        self._live.update(self._line(parts, now), refresh=True)

    def _line(self, parts: Sequence[Part], now: float) -> Table:
        line, share = Table.grid(padding=(0, 2, 0, 0)), tell_share(parts, now)
        width = self._console.width - 1  # the last column stays free: terminals wrap there
        cells: list[RenderableType] = []
        if width >= NARROW:
            width -= BAR + 2
            line.add_column(width=BAR)
            cells.append(ProgressBar(total=1.0, completed=share_of(parts), width=BAR))
        line.add_column(width=width, no_wrap=True, overflow="crop")
        line.add_row(*cells, Text(f"{share}  {tell_work(parts, width - len(share) - 2)}"))
        return line


def tell_work(parts: Sequence[Part], width: float = math.inf) -> str:
    """What is being done, in words; where there is no room for all, without what is outermost."""
    words = [*map(_words, parts)]
    while len(words) > 1 and len(", ".join(words)) > width:
        words.pop(0)
    return ", ".join(words)


def _words(part: Part) -> str:
    words = part.name
    at, total = part.done + part.ahead, part.total
    if part.counted and total is None:
        words += f" {at:,.0f}"
    elif total is not None and total > 1:
        words += f" {min(at, total):,.0f} of {total:,.0f}"
    return f"{words}, {part.note}" if part.note else words


def tell_share(parts: Sequence[Part], now: float) -> str:
    """How much is done and how long the rest may take, as far as that can be known."""
    first = _measured(parts)
    if first is None:
        return f"{tell_time(now - _first(parts).since)} so far"
    share, before, spent = share_of(parts), first.begun / (first.total or 1), now - first.since
    if share <= before:
        return f"{share:.0%}, {tell_time(spent)} so far"
    left = spent * (1 - share) / (share - before)
    return f"{share:.0%}, {'at most ' if any(part.at_most for part in parts) else ''}{tell_time(left)} left"


def share_of(parts: Sequence[Part]) -> float:
    """How much is done of the outermost work that can be measured: what lies in it counts as a part of its item."""
    share, first = 0.0, _measured(parts)
    for part in reversed(parts):
        if part.total:
            share = min((part.done + share) / part.total, 1.0)
        if part is first:
            break
    return share


def _first(parts: Sequence[Part]) -> Part:
    return next((part for part in parts if part.counted), parts[0])


def _measured(parts: Sequence[Part]) -> Part | None:
    return next((part for part in parts if part.total), None)


def tell_time(seconds: float) -> str:
    """A time as people say it.

    >>> tell_time(67.4), tell_time(3725)
    ('1:07', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
