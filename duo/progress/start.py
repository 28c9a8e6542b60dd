"""The first line of a command that works for long: it comes before imports that take ten seconds."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
WORKS = {
    "duo.run": ("recipe=",), "duo.sweep": ("recipe=",), "duo.leaderboard": ("submit", "verify"),
    "duo.compare": ("",), "duo.difficulty": ("",), "duo.convert": ("",), "duo.generate": ("",),
}  # fmt: skip
"""Commands, and what one of their arguments begins with where they work; else their answer may go into a file."""
WRITES = ("duo.compare", "duo.generate")  # their standard output is the text's, or the tables'


def announce(command: Sequence[str]) -> None:
    """Says that the command has begun, if it is one that works.

    Args:
        command: the interpreter, and all that was typed behind it.
    """
    if "-m" not in command or any(os.environ.get(name) not in (None, "", "0") for name in RANKS):
        return  # of several processes one speaks
    module, *arguments = command[command.index("-m") + 1 :]
    works = any(argument.startswith(WORKS.get(module, ())) for argument in arguments)
    stream = sys.stderr if module in WRITES else sys.stdout
    if not works or {"--help", "-h"} & {*arguments} or stream is None:
        return
    with contextlib.suppress(OSError, ValueError):  # nobody reads: the command itself will say so
        print(f"start  {module}: loading torch and Lightning, which takes some seconds", file=stream, flush=True)
