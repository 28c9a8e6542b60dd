"""Entries: what was run, what came out of it, and all that running it again takes."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct
from safetensors.numpy import load

from duo.intervals import Sequences
from duo.row import PARTS, Row, arrays_of
from duo.store import Store, sha256

SCHEMA = 1
MOST = {"recipe.yaml": 64 << 10, "router.safetensors": 1 << 30, "sequences.safetensors": 64 << 20}
"""The files of an entry, and the bytes that each may have."""

PLACE = re.compile(r"""(?:^|[\s"'=:\[(])(?:/[\w.~+-]+){2,}|\b[A-Za-z]:\\\\""")  # an absolute path inside JSON or YAML

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Label = Annotated[str, Meta(min_length=1, max_length=200)]
Words = Annotated[str, Meta(max_length=2000)]
Positive = Annotated[float, Meta(gt=0)]
Cost = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class ScoreHead(Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of `duo.score.Score` that are written."""

    loss: Cost
    loss_interval: tuple[float, float] | None
    perplexity: Positive | None
    bits_per_byte: Cost | None
    tokens: Annotated[int, Meta(ge=1)]
    share: dict[Label, Share]
    flops_per_token: Positive
    budget_flops_per_token: Positive
    deciding_flops_per_token: Cost
    within_budget: bool
    passes: Cost
    labels_consulted: bool
    seconds_per_token: Cost
    promised_loss: float | None


class RowHead(Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of `duo.row.Row`."""

    router: Label
    options: dict[Label, Any]
    budget: dict[Label, Cost]
    digests: dict[Label, Digest]
    learned: bool
    seeds: Annotated[int, Meta(ge=1, le=1)]
    seed_losses: dict[Label, list[Cost]]
    scores: dict[Label, ScoreHead]
    subset: dict[Label, ScoreHead]
    collapsed: dict[Label, list[Words]]
    failed: None


class Package(Struct, frozen=True, forbid_unknown_fields=True):
    """The package that registers a router."""

    name: Label
    version: Label
    source: Digest
    """Of the router's source (`duo.sources.source_digest`)."""


class Provenance(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the entry was made, as its maker says; nothing of it can be run again."""

    commit: Label | None
    versions: dict[Label, Label]
    device: Label
    seconds: Cost
    command: Words


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """`result.json` of an entry."""

    schema: Annotated[int, Meta(ge=SCHEMA, le=SCHEMA)]
    name: Label
    note: Words
    recipe: Digest
    """Identity of the resolved recipe."""
    line: Digest
    """The same without the seed: entries that share it differ in nothing else."""
    seed: Annotated[int, Meta(ge=0)]
    backbone: Digest
    """The published backbone."""
    package: Package
    row: RowHead
    provenance: Provenance
    files: dict[Label, Digest]


class Entry(Struct, frozen=True):
    """An entry that was read: its head, its row with what it is made of, and its recipe."""

    digest: str
    head: Head
    row: Row
    recipe: str
    """The resolved recipe as YAML."""


def read(store: Store, digest: str) -> Entry:
    """An entry; no code of it runs.

    Raises:
        ValueError: a file is missing, was changed or is not what it should be; it is named.
    """
    values = store.head("entries", digest)
    head = _head(values, digest)
    sequences = store.file("entries", digest, "sequences.safetensors", MOST["sequences.safetensors"])
    try:
        row = Row.of(values["row"], load(sequences))
        for part in PARTS:
            for holdout, score in getattr(row, part).items():
                _check(score.sequences, score.loss, f"{part}/{holdout}")
    except Exception as error:  # safetensors has exceptions of its own
        raise ValueError(f"entries/{digest[:12]}/sequences.safetensors: {error}") from error
    recipe = store.file("entries", digest, "recipe.yaml", MOST["recipe.yaml"])
    return Entry(digest, head, row, recipe.decode(errors="replace"))


def add(store: Store, head: dict[str, Any], row: Row, files: dict[str, bytes]) -> str:
    """Adds an entry and returns its digest; `files` are `recipe.yaml` and `router.safetensors`.

    Raises:
        ValueError: a field is not what it should be, or the store cannot be written.
    """
    head = {"schema": SCHEMA, **head, "row": row.to_json()}
    for text in (json.dumps(head), files["recipe.yaml"].decode()):
        if place := PLACE.search(text):
            raise ValueError(f"it names a place on this machine, {place.group().strip()!r}: entries are for everyone")
    files = files | {"sequences.safetensors": arrays_of(row.parts())}
    _head(head | {"files": {name: sha256(data) for name, data in files.items()}}, "new")
    return store.add("entries", head, files)


def _head(values: dict[str, Any], digest: str) -> Head:
    try:
        head = msgspec.convert(values, Head)
    except msgspec.ValidationError as error:
        raise ValueError(f"entries/{digest[:12]}/result.json: {error}") from error
    if {*head.files} != {*MOST}:
        raise ValueError(f"entries/{digest[:12]}/result.json: its files are {', '.join(sorted(head.files))}")
    return head


def _check(part: Sequences, loss: float, name: str) -> None:
    """Raises ValueError where a score's parts cannot be those of the score."""
    lengths = {len(part.loss_N), len(part.tokens_N), len(part.sequence_N), len(np.unique(part.sequence_N))}
    if len(lengths) != 1 or part.used_TLM.ndim != 3 or part.used_TLM.shape[2] != 3:
        raise ValueError(f"{name}: its arrays do not belong together")
    if not (np.isfinite(part.loss_N).all() and (part.tokens_N > 0).all() and np.isfinite(part.used_TLM).all()):
        raise ValueError(f"{name}: it holds what is no number")
    if abs(part.loss_N.sum() / part.tokens_N.sum() - loss) > 1e-9 * max(loss, 1):
        raise ValueError(f"{name}: its loss is not that of its sequences")
