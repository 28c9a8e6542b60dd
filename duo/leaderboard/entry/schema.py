"""The form of an entry's `result.json`: what may stand in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from duo.backbone import MODULES
from duo.evaluation.evaluate import OVERSPEND
from duo.evaluation.row import Digest, Label, Row, Words
from duo.evaluation.score import Cost

SCHEMA = 4
MOST = {"recipe.yaml": 64 << 10, "router.safetensors": 1 << 30, "sequences.safetensors": 64 << 20}
"""The files of an entry, and the bytes that each may have."""

PLACE = re.compile(r"file:/|~\w*/|(?<![\w./:<])/+[\w.]|:/[\w.]|\b[A-Za-z]:[\\/]|\\\\\\\\")
"""Absolute paths, in JSON or YAML."""
SECRET = re.compile(r"\b(?:hf_|gh[pousr]_|github_pat_|sk-|xox[abp]-|AKIA|glpat-)[\w-]{16,}|-----BEGIN")
"""Keys, by their shape."""


class Package(Struct, frozen=True, forbid_unknown_fields=True):
    """The package that registers a router."""

    name: Label
    version: Label
    source: Digest
    """Of the router's source (`duo.routing.source.source_digest`)."""


class Provenance(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the entry was made, as its maker says; nothing of it can be run again."""

    commit: Label | None
    versions: dict[Label, Label]
    device: Label
    seconds: Cost
    command: Words


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """`result.json` of an entry; what its recipe says is not said again."""

    schema: Annotated[int, Meta(ge=SCHEMA, le=SCHEMA)]
    name: Label
    note: Words
    package: Package
    row: Row
    provenance: Provenance
    files: dict[Label, Digest]


def read_head(values: dict[str, Any], name: str) -> Head:
    """The head, checked but for its numbers' truth.

    Raises:
        ValueError: it is of an older form, or a field is not what it should be.
    """
    try:
        if isinstance(found := values.get("schema"), int) and found < SCHEMA:
            raise ValueError(f"schema {found} is an older form of entries, this duo reads {SCHEMA}: submit it again")
        head = msgspec.convert(values, Head)
        for text in _texts(values):
            if not text.isprintable():  # it could move a cursor, or hide what is said
                raise ValueError(f"{text[:50]!r} holds signs that are not printed")
        if {*head.files} != {*MOST}:
            raise ValueError(f"its files are {', '.join(sorted(head.files))}")
        _check_row(head.row)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"entries/{name[:12]}/result.json: {str(error)[:300]}") from error
    return head


def _check_row(row: Row) -> None:
    """Raises ValueError where a row's fields contradict one another, or are those of no single row."""
    if row.failed or row.beside or row.seeds != 1:
        raise ValueError("row.seeds, row.failed and row.beside are not those of one seed on its own")
    if len(json.dumps(row.options)) > 2048:
        raise ValueError("row.options are larger than 2 KiB")
    if not row.subset or (row.scores and {*row.scores} != {*row.subset}) or {*row.collapsed} != {*row.shown}:
        raise ValueError("row.scores, row.subset and row.collapsed are not of the same hold-outs")
    for score in (*row.scores.values(), *row.subset.values()):
        if {*score.share} != {*MODULES} or max(score.share.values()) > 1:
            raise ValueError(f"share={score.share} must be a share for each of {', '.join(MODULES)}")
        if score.within_budget and score.flops_per_token > OVERSPEND * score.budget_flops_per_token:
            raise ValueError("row says that it is within a budget that its FLOPs exceed")


def _texts(value: Any) -> Iterator[str]:
    """All strings in plain values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from (key, *_texts(part))
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
