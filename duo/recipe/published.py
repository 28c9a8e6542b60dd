"""A published backbone by its digest, which may be typed shortened and stands whole in every recipe."""

from __future__ import annotations

from typing import Any

from duo.storage.shared import BEGINNING, find, open_store
from duo.storage.store import DIGEST


def with_digest(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values with the whole digest of the backbone that `leaderboard.backbone` begins to name.

    Raises:
        ValueError: the store has none that begins so, or several.
    """
    section = values.get("leaderboard") or {}
    named = section.get("backbone")
    if not isinstance(named, str) or DIGEST.fullmatch(named) or not BEGINNING.fullmatch(named):
        return values  # what is no digest at all is told where the recipe is checked
    try:
        _, digest = find(open_store(section.get("store")), named, "backbones")
    except ValueError as error:
        raise ValueError(f"leaderboard.backbone={named}: {error}") from error
    return values | {"leaderboard": section | {"backbone": digest}}
