"""Places that people name: whether they are free, and how they may be shown, without login and query (passwords)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

BRANCHES = r"(?!(?:\w+::)*(?:hf|github|git)://)"  # there an @ stands before a branch, and behind no login


def _login(sign: str) -> re.Pattern[str]:
    # what has a colon that is no port's, up to the last @, for passwords hold every sign; or a name alone
    return re.compile(rf"(?<![\w+.-]){BRANCHES}([\w+.:-]+?://)(?:[^/\s:@]*:(?!\d+(?:/|$)){sign}*@|[^/\s]*@)")


WORD, TEXT = _login(r"[\s\S]"), _login(r"\S")
QUERY = re.compile(r"(://[^\s?'\"]*)\?[^\s='\"]*=[^\s'\"]*")


def shown(location: str) -> str:
    """A location, or a word of a command that names one, without login and query.

    >>> shown("leaderboard.store=sftp://me:s ec/r@t@host:22/board")
    'leaderboard.store=sftp://host:22/board'
    >>> shown("https://host/board?token=secret")
    'https://host/board'
    >>> shown("hf://datasets/me/board@main")
    'hf://datasets/me/board@main'
    """
    return QUERY.sub(r"\1", WORD.sub(r"\1", location))


def shown_command(command: str) -> str:
    """A command whose words are shown; one that names no secret stays as it is, sign by sign."""
    try:
        words = shlex.split(command)
    except ValueError:  # no shell would read it
        return shown_text(command)
    return command if (clean := [*map(shown, words)]) == words else shlex.join(clean)


def shown_text(text: str) -> str:
    """A text in which addresses may stand anywhere, without their logins and queries.

    >>> shown_text("sftp://me:secret@host cannot be read: ask me@example.org")
    'sftp://host cannot be read: ask me@example.org'
    """
    return QUERY.sub(r"\1", TEXT.sub(r"\1", text))


def one_line(text: str) -> str:
    r"""A text without the line breaks that other libraries' messages, and some names, have.

    >>> one_line("cannot be read:\n  line 3")
    'cannot be read: line 3'
    """
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def is_taken(folder: Path) -> bool:
    """Whether something is in a folder that is to be written, or a file has its name."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
