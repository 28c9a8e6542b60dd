"""Entries: what was run, what came out of it, and all that running it again takes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from msgspec import Struct, to_builtins
from safetensors.numpy import load

from duo.backbone import MODULES, Budget, Counts
from duo.evaluation.format import attach_arrays, find_scores, pack_arrays
from duo.evaluation.row import Row
from duo.evaluation.score import Score
from duo.leaderboard.entry.recipe import read_values
from duo.leaderboard.entry.schema import MOST, PLACE, SCHEMA, SECRET, Head, read_head
from duo.recipe import digest
from duo.recipe.first import flatten, identity_of
from duo.storage.store import DIGEST, Store, sha256


class Entry(Struct, frozen=True):
    """An entry that was read: its head, its row with what it is made of, and its recipe."""

    digest: str
    head: Head
    row: Row
    recipe: str
    """Its recipe as YAML."""
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
        return digest([identity_of(flatten(self.settings) | {"seed": 0}), self.head.package.source])

    @property
    def budget(self) -> Counts:
        """What a token may spend."""
        return Budget(**self.settings["budget"]).of(self.settings["backbone"]["layers"])


def read(store: Store, name: str) -> Entry:
    """An entry; no code of it runs.

    Raises:
        Unfinished: it is still being written.
        ValueError: a file is missing, was changed or is not what it should be; it is named.
    """
    values = store.head("entries", name)
    head, where = read_head(values, name), f"entries/{name[:12]}"
    text = store.file("entries", name, "recipe.yaml", values, MOST["recipe.yaml"]).decode(errors="replace")
    arrays = store.file("entries", name, "sequences.safetensors", values, MOST["sequences.safetensors"])
    if not store.holds("entries", name, "router.safetensors"):  # not read here: that they are unchanged, verify says
        raise ValueError(f"{where}/router.safetensors is missing")
    try:
        settings = read_values(text)
        _check_settings(settings, head.row)
    except Exception as error:  # YAML's, of whatever a stranger wrote
        raise ValueError(f"{where}/recipe.yaml: {error}") from error
    try:
        row = attach_arrays(head.row, load(arrays))
        for path, score in find_scores(row):
            _check_arrays(score, path)
    except Exception as error:  # safetensors has exceptions of its own
        raise ValueError(f"{where}/sequences.safetensors: {error}") from error
    return Entry(name, head, row, text, settings)


def add(store: Store, head: dict[str, Any], row: Row, files: dict[str, bytes]) -> str:
    """Adds an entry and returns its digest; `files` are `recipe.yaml` and `router.safetensors`.

    Raises:
        ValueError: a field is not what it should be, or the store cannot be written.
    """
    head = {"schema": SCHEMA, **head, "row": to_builtins(row)}
    # not escaped, so that the patterns see what people wrote
    for text in (json.dumps(head, ensure_ascii=False), files["recipe.yaml"].decode()):
        if place := PLACE.search(text):
            around = text[max(place.start() - 20, 0) : place.end() + 20]
            raise ValueError(f"{around!r} names a place on this machine; entries are for everyone: leave it out")
        if secret := SECRET.search(text):
            raise ValueError(f"{secret[0][:6]!r}... looks like a key; entries are for everyone: leave it out")
    files = files | {"sequences.safetensors": pack_arrays(row)}
    # checked as a reader will check it
    read_head(head | {"files": {name: sha256(data) for name, data in files.items()}}, "new")
    return store.add("entries", head, files)


def _check_settings(settings: dict[str, Any], row: Row) -> None:
    """Raises ValueError where a recipe's values are not those of its row."""
    # not isinstance, for which true is an int
    if not (type(settings["seed"]) is int and DIGEST.fullmatch(settings["leaderboard"]["backbone"])):
        raise ValueError("seed or leaderboard.backbone is missing")
    if type(settings["backbone"]["layers"]) is not int:
        raise ValueError(f"backbone.layers={settings['backbone']['layers']!r} is no whole number")
    router = settings["router"]
    options = {key: value for key, value in router.items() if key != "name"}
    budget = Budget(**settings["budget"]).of(settings["backbone"]["layers"])._asdict()
    said = {"router": row.router, "options": row.options, "budget": row.budget}
    for name, found in {"router": router["name"], "options": options, "budget": budget}.items():
        if said[name] != found:
            raise ValueError(f"row.{name} is {said[name]}, the recipe says {found}")
    full = settings["full_holdout"]
    if bool(row.scores) != full:
        raise ValueError(f"full_holdout={full} and row.scores do not go together: give full_holdout=true with them")


def _check_arrays(score: Score, name: str) -> None:
    """Raises ValueError where a score's parts cannot be those of the score."""
    part = score.sequences
    sequences = len(part.sequence_B)
    shapes = [(1, sequences), (sequences,), part.used_TLM.shape[:2] + (len(MODULES),), (sequences,), (sequences,)]
    forms = [(array.dtype.kind, array.shape) for array in part]
    if forms != [*zip("fiiii", shapes, strict=True)] or not 0 < part.used_TLM.size < 1 << 24:
        raise ValueError(f"{name}: its arrays do not belong together")
    if not np.isfinite(part.loss_ZB).all():
        raise ValueError(f"{name}: it holds what is no number")
    used_TL = part.used_TLM.sum(-1)
    if part.used_TLM.min() < 0 or used_TL.max() > sequences or (np.diff(part.sequence_B) <= 0).any():
        raise ValueError(f"{name}: its arrays do not belong together")
    if part.tokens_B.min() < 1 or part.tokens_B.sum() != score.tokens:
        raise ValueError(f"{name}: tokens={score.tokens} are not those of its sequences")
    if part.documents != score.documents:
        raise ValueError(f"{name}: documents={score.documents} are not those of its sequences")
    if abs(part.loss_B.sum() / score.tokens - score.loss) > 1e-9 * max(score.loss, 1):
        raise ValueError(f"{name}: its loss is not that of its sequences")
