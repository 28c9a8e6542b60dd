"""The router of an entry, with the weights that the entry holds."""

from __future__ import annotations

from pathlib import Path

from msgspec import to_builtins

from duo.leaderboard.entry.entry import Entry
from duo.recipe import Recipe
from duo.routing.router import Router
from duo.storage.store import Store
from duo.storage.weights import load_weights


def open_router(store: Store, claimed: Entry, recipe: Recipe, folder: Path) -> Router:
    """An entry's router; its weights are left in `folder`, as `router.safetensors`.

    Raises:
        ValueError: the router is not installed, or the weights are none of its own.
    """
    weights = folder / "router.safetensors"
    weights.write_bytes(store.file("entries", claimed.digest, weights.name, to_builtins(claimed.head)))
    router = recipe.new_router()
    try:
        load_weights(router, weights)
    except ValueError as error:
        raise ValueError(f"{weights.name} is none of the router's: {error.__cause__}") from error
    return router
