"""Entries: what was run, what came out of it, and all that running it again takes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from msgspec import Struct, to_builtins
from safetensors.numpy import load

from duo.backbone import MODULES
from duo.evaluation.format import arrays_of
from duo.evaluation.row import PARTS, Row
from duo.evaluation.score import Score
from duo.leaderboard.entry.recipe import plain
from duo.leaderboard.entry.schema import MOST, PLACE, SCHEMA, SECRET, Head, RowHead, head_of
from duo.recipe.schema import digest
from duo.storage.store import DIGEST, Store, sha256


class Entry(Struct, frozen=True):
    """An entry that was read: its head, its row with what it is made of, and its recipe."""

    digest: str
    head: Head
    row: Row
    recipe: str
    """The resolved recipe as YAML."""
    settings: dict[str, Any]
    """The same as plain values."""

    @property
    def seed(self) -> int:
        """Of the router's first weights, of its training and of the evaluation."""
        return int(self.settings["seed"])

    @property
    def backbone(self) -> str:
        """Digest of the published backbone."""
        return str(self.settings["leaderboard"]["backbone"])

    @property
    def line(self) -> str:
        """Digest of the recipe without its seed, and of the router's source: what the seeds of one line share."""
        return digest([self.settings | {"seed": None}, self.head.package.source])


def read(store: Store, name: str) -> Entry:
    """An entry; no code of it runs.

    Raises:
        Unfinished: it is still being written.
        ValueError: a file is missing, was changed or is not what it should be; it is named.
    """
    values = store.head("entries", name)
    head, where = head_of(values, name), f"entries/{name[:12]}"
    text = store.file("entries", name, "recipe.yaml", values, MOST["recipe.yaml"]).decode(errors="replace")
    arrays = store.file("entries", name, "sequences.safetensors", values, MOST["sequences.safetensors"])
    if not store.holds("entries", name, "router.safetensors"):  # not read here: that they are unchanged, verify says
        raise ValueError(f"{where}/router.safetensors is missing")
    try:
        settings = _settings(text, head.row)
    except Exception as error:  # YAML's, of whatever a stranger wrote
        raise ValueError(f"{where}/recipe.yaml: {error}") from error
    try:
        row = Row.of(values["row"], load(arrays))
        for part in PARTS:
            for holdout, score in getattr(row, part).items():
                _check(score, f"{part}.{holdout}")
    except Exception as error:  # safetensors has exceptions of its own
        raise ValueError(f"{where}/sequences.safetensors: {error}") from error
    return Entry(name, head, row, text, settings)


def add(store: Store, head: dict[str, Any], row: Row, files: dict[str, bytes]) -> str:
    """Adds an entry and returns its digest; `files` are `recipe.yaml` and `router.safetensors`.

    Raises:
        ValueError: a field is not what it should be, or the store cannot be written.
    """
    head = {"schema": SCHEMA, **head, "row": row.to_json()}
    for text in (json.dumps(head, ensure_ascii=False), files["recipe.yaml"].decode()):
        if place := PLACE.search(text):
            around = text[max(place.start() - 20, 0) : place.end() + 20]
            raise ValueError(f"{around!r} names a place on this machine; entries are for everyone: leave it out")
        if secret := SECRET.search(text):
            raise ValueError(f"{secret[0][:6]!r}... looks like a key; entries are for everyone: leave it out")
    files = files | {"sequences.safetensors": arrays_of(row.parts())}
    head_of(head | {"files": {name: sha256(data) for name, data in files.items()}}, "new")
    return store.add("entries", head, files)


def _settings(text: str, row: RowHead) -> dict[str, Any]:
    """A recipe as plain values; raises where the row says otherwise."""
    settings = plain(text)
    router = settings["router"]
    options = {key: value for key, value in router.items() if key != "name"}
    said = {"router": row.router, "options": row.options, "budget": to_builtins(row.budget)}
    for name, found in {"router": router["name"], "options": options, "budget": settings["budget"]}.items():
        if said[name] != found:
            raise ValueError(f"row.{name} is {said[name]}, the recipe says {found}")
    if bool(row.scores) != settings["whole"]:
        raise ValueError(f"whole={settings['whole']} and row.scores do not go together: give whole=true with them")
    if not (type(settings["seed"]) is int and DIGEST.fullmatch(settings["leaderboard"]["backbone"])):
        raise ValueError("seed or leaderboard.backbone is missing")
    return settings


def _check(score: Score, name: str) -> None:
    """Raises ValueError where a score's parts cannot be those of the score."""
    part = score.sequences
    lengths = {len(part.loss_N), len(part.tokens_N), len(part.sequence_N)}
    kinds = [part.loss_N.dtype.kind, part.tokens_N.dtype.kind, part.sequence_N.dtype.kind, part.used_TLM.dtype.kind]
    shapes = [array.ndim for array in part] == [1, 1, 3, 1] and part.used_TLM.shape[2] == len(MODULES)
    if len(lengths) != 1 or kinds != ["f", "i", "i", "f"] or not shapes or not 0 < part.used_TLM.size < 1 << 24:
        raise ValueError(f"{name}: its arrays do not belong together")
    if not (np.isfinite(part.loss_N).all() and np.isfinite(part.used_TLM).all()):
        raise ValueError(f"{name}: it holds what is no number")
    if part.used_TLM.min() < 0 or part.used_TLM.max() > 1 or (np.diff(part.sequence_N) <= 0).any():
        raise ValueError(f"{name}: its arrays do not belong together")
    if part.tokens_N.min() < 1 or part.tokens_N.sum() != score.tokens:
        raise ValueError(f"{name}: tokens={score.tokens} are not those of its sequences")
    if abs(part.loss_N.sum() / score.tokens - score.loss) > 1e-9 * max(score.loss, 1):
        raise ValueError(f"{name}: its loss is not that of its sequences")
