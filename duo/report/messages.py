"""What duo says while it works: its log, and how far it is, on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.highlighter import RegexHighlighter
from rich.logging import RichHandler

from duo.progress import watching
from duo.progress.beat import beating
from duo.progress.shown import watcher_of
from duo.progress.start import speak


def plain_console(soft_wrap: bool = True, **more: Any) -> Console:
    """A console that shows text as it is, whatever names and paths in it hold; `more` is rich's."""
    return Console(emoji=False, highlight=False, markup=False, soft_wrap=soft_wrap, **more)


class _Stage(RegexHighlighter):
    """Shows in bold what a message is about: the words in front of two spaces."""

    highlights = [r"^(?P<bold>\S.*?)(?=  )"]


class _PlainHandler(RichHandler):
    """Rich's handler with nothing but the message, on one line however long."""

    def render(self, *, record: logging.LogRecord, traceback: Any, message_renderable: Any) -> Any:
        speak()
        return message_renderable


@contextmanager
def messages(console: Console, progress: bool = True, **levels: int) -> Iterator[None]:
    """Shows what duo logs on the console, from level INFO on, and how far it is.

    Args:
        progress: false: nothing is shown of how far it is.
        levels: other levels by part of duo, as in `stages=logging.WARNING`.
    """
    log, handler = logging.getLogger("duo"), _PlainHandler(console=console, highlighter=_Stage())
    loggers = {log: logging.INFO} | {logging.getLogger(f"duo.{part}"): level for part, level in levels.items()}
    before = {logger: logger.level for logger in loggers}
    for logger, level in loggers.items():
        logger.setLevel(level)
    log.addHandler(handler)
    try:
        if progress and not console.quiet:
            with watching(watcher_of(console)), beating():
                yield
        else:
            with watching(None):
                yield
    finally:
        log.removeHandler(handler)
        for logger, level in before.items():
            logger.setLevel(level)
