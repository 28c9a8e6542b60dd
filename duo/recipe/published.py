"""A published backbone by its digest, which may be typed shortened and stands whole in every recipe."""

from __future__ import annotations

from typing import Any

from duo.routing import registry
from duo.storage.shared import BEGINNING, PublishedBackbone, find, open_store
from duo.storage.store import DIGEST


def with_digest(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values with the whole digests of the backbones that `leaderboard.backbone` and its router name.

    Raises:
        ValueError: the store has none that begins so, or several.
    """
    section = values.get("leaderboard") or {}
    whole = _whole("leaderboard.backbone", section.get("backbone"), section.get("store"))
    if whole != section.get("backbone"):
        values = values | {"leaderboard": section | {"backbone": whole}}
    if isinstance(router := values.get("router"), dict):
        # of the store that DUO_LEADERBOARD_STORE names: a router knows no recipe
        named = {key: _whole(f"router.{key}", router[key], None) for key in _options(router) if key in router}
        if named:
            values = values | {"router": router | named}
    return values


def _whole(setting: str, named: Any, store: str | None) -> Any:
    """The whole digest; what is none at all stays, and is told where the recipe is checked."""
    if not isinstance(named, str) or DIGEST.fullmatch(named) or not BEGINNING.fullmatch(named):
        return named
    try:
        return find(open_store(store), named, "backbones")[1]
    except ValueError as error:
        raise ValueError(f"{setting}={named}: {error}") from error


def _options(router: dict[str, Any]) -> list[str]:
    """Options of a router that name a published backbone."""
    name = router.get("name")
    if not isinstance(name, str) or len(router) == 1 or name not in registry.available():
        return []
    return registry.options_of(name, PublishedBackbone)
