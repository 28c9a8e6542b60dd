"""A line of the report."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """What was found, and what is wrong with it."""

    name: str
    """What was looked at, in a word or two."""
    found: str
    """What it is."""
    wrong: str = ""
    """What is wrong and the way out, on one line; empty: nothing."""
