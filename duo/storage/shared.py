"""The leaderboard that everybody means who names none; and digests by their beginning."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import duo
from duo.storage.location import shown
from duo.storage.store import Store

STORE = "DUO_LEADERBOARD_STORE"
"""In the environment: the location where leaderboard.store says nothing; no list of processes shows its password."""
LEAST = 4
BEGINNING = re.compile(f"[0-9a-f]{{{LEAST},64}}")
"""What a digest may be shortened to."""
PublishedBackbone = Annotated[str, "digest of a published backbone"]
"""Of a router's option: in a recipe it may be shortened."""
NAMED = 5  # digests that a message names


def default_store() -> str:
    """The location that the environment names, or the repository's own.

    Raises:
        ValueError: there is neither.
    """
    return os.environ.get(STORE) or own_store()


def own_store() -> str:
    """The `leaderboard` folder of the repository that duo runs from.

    Raises:
        ValueError: duo was installed as a wheel.
    """
    folder = Path(duo.__file__).parents[1] / "leaderboard"
    if not folder.is_dir():
        raise ValueError("this duo is installed without a leaderboard: give leaderboard.store=DIR")
    return str(folder)


def open_store(location: str | None = None) -> Store:
    """The leaderboard at a location (None: the default one), with the login that the environment gives for it."""
    named, given = location or default_store(), os.environ.get(STORE, "")
    return Store(given if shown(given) == named else named)


def find(store: Store, beginning: str, *kinds: str) -> tuple[str, str]:
    """Kind and digest of the one folder of these kinds whose digest begins so.

    Raises:
        ValueError: there is none, or there are several; they are named. Or it is too short.
    """
    known = [(kind, digest) for kind in kinds for digest in store.digests(kind)]
    found = [(kind, digest) for kind, digest in known if digest.startswith(beginning)]
    if len(found) == 1 and len(beginning) >= LEAST:
        return found[0]
    which = " and ".join(kinds)
    if not known:
        raise ValueError(f"0 {which} begin with {beginning!r}: there are none at all in {store.shown}")
    there = [f"{kind}/{digest[:12]}" if len(kinds) > 1 else digest[:12] for kind, digest in found or known]
    names = ", ".join(there[:NAMED]) + ", ..." * (len(there) > NAMED)
    raise ValueError(
        f"{len(found)} {which} begin with {beginning!r}, give the beginning of one, of {LEAST} digits or more; "
        f"there {'are' if len(there) > 1 else 'is'} {names}"
    )
