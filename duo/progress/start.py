"""The first line of a command: it comes before imports that take seconds, and is said again where they take longer."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import TextIO

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
WORKS = {"duo.run": ("recipe=",), "duo.sweep": ("recipe=",), "duo.leaderboard": ("submit", "verify"),
         "duo.difficulty": ("",), "duo.convert": ("",)}  # fmt: skip
"""Commands, and what one of their arguments begins with where they work: what they say is theirs alone."""
ANSWERS = {"duo.compare": ("",), "duo.generate": ("",), "duo.plan": ("recipe=",), "duo.plugins": ("list", "check"),
           "duo.leaderboard": ("show", "page")}  # fmt: skip
"""The same of commands whose standard output is a text or a table, which may go into a file."""
AGAIN = 10.0  # seconds

_spoken = threading.Event()


def announce(command: Sequence[str]) -> None:
    """Says that the command has begun, if it is one that works.

    Args:
        command: the interpreter, and all that was typed behind it.
    """
    if "-m" not in command or any(os.environ.get(name) not in (None, "", "0") for name in RANKS):
        return  # of several processes one speaks
    module, *arguments = command[command.index("-m") + 1 :]
    if {"--help", "-h"} & {*arguments}:
        return
    streams = [
        stream
        for stream, commands in ((sys.stdout, WORKS), (sys.stderr, ANSWERS))
        if stream is not None and any(argument.startswith(commands.get(module, ())) for argument in arguments)
    ]
    if streams:
        _say(f"start  {module}: loading torch and Lightning, which takes some seconds", streams[0])
        _spoken.clear()
        threading.Thread(target=_say_again, args=(module, streams[0]), name="signs of life", daemon=True).start()


def speak() -> None:
    """Something else is said from now on, so that the first line need not be said again."""
    _spoken.set()


def _say(line: str, stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody reads: the command itself will say so
        print(line, file=stream, flush=True)


def _say_again(module: str, stream: TextIO) -> None:
    begun = time.monotonic()
    while not _spoken.wait(AGAIN):
        _say(f"start  {module}: {time.monotonic() - begun:.0f} seconds so far", stream)
