"""Time and terminals of the tests' own, and what work leaves on them."""

import io
import logging
import re

from rich.console import Console

from duo.progress import watching
from duo.progress.shown import Line, Lines


class Clock:
    """Time that goes by where the tests say so."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds

    def passing(self, items, seconds):
        for item in items:
            self.seconds += seconds
            yield item


class Terminal(io.StringIO):
    def isatty(self):
        return True


def console_of(stream, width=80):
    return Console(
        file=stream, width=width, height=24, emoji=False, highlight=False, markup=False, soft_wrap=True,
        color_system=None, _environ={"TERM": "xterm"},
    )  # fmt: skip


def screen_of(written):
    """What stands on the rows of a terminal after all that was written, by the few controls that are used."""
    rows, at = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            at += 1
            rows += [""] * (at == len(rows))
            rows[at] = rows[at] if at < len(rows) - 1 else ""
        elif part == "\x1b[2K":
            rows[at] = ""
        elif part.endswith("A") and part.startswith("\x1b["):
            at -= int(part[2:-1])
        elif not part.startswith("\x1b") and part != "\r":
            rows[at] = part
    return rows


def logged(clock, work, caplog):
    """The lines that work leaves in a file."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "duo"), watching(Lines(clock)):
        work()
    return [record.getMessage() for record in caplog.records]


def drawn(clock, work):
    """All that work writes on a terminal of 80 columns."""
    stream = Terminal()
    with watching(Line(console_of(stream), clock)):
        work(stream)
    return stream.getvalue()
