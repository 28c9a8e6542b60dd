"""The format of an entry's `result.json`, and what may stand in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from duo.evaluation.evaluate import OVERSPEND
from duo.storage.store import DIGEST

SCHEMA = 1
MOST = {"recipe.yaml": 64 << 10, "router.safetensors": 1 << 30, "sequences.safetensors": 64 << 20}
"""The files of an entry, and the bytes that each may have."""

PLACE = re.compile(
    r"file:/|~\w*/|(?<![\w./:<])/+[\w.]|:/[\w.]|\b[A-Za-z]:[\\/]|\\\\\\\\"
)  # absolute paths, in JSON or YAML
SECRET = re.compile(
    r"\b(?:hf_|gh[pousr]_|github_pat_|sk-|xox[abp]-|AKIA|glpat-)[\w-]{16,}|-----BEGIN"
)  # keys by their shape

Digest = Annotated[str, Meta(pattern=f"^{DIGEST.pattern}$")]
Label = Annotated[str, Meta(min_length=1, max_length=200)]
Words = Annotated[str, Meta(max_length=2000)]
Positive = Annotated[float, Meta(gt=0, le=1e100)]
Cost = Annotated[float, Meta(ge=0, le=1e100)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Shares(Struct, frozen=True, forbid_unknown_fields=True):
    """Shares of the modules used."""

    skip: Share
    small: Share
    big: Share


class Modules(Struct, frozen=True, forbid_unknown_fields=True):
    """A budget."""

    big: Cost
    skip: Cost


class ScoreHead(Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of `duo.score.Score` that are written."""

    loss: Cost
    loss_interval: tuple[float, float] | None
    perplexity: Positive | None
    bits_per_byte: Cost | None
    tokens: Annotated[int, Meta(ge=1)]
    share: Shares
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
    budget: Modules
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
    """`result.json` of an entry; what its recipe says is not said again."""

    schema: Annotated[int, Meta(ge=SCHEMA, le=SCHEMA)]
    name: Label
    note: Words
    package: Package
    row: RowHead
    provenance: Provenance
    files: dict[Label, Digest]


def head_of(values: dict[str, Any], name: str) -> Head:
    """The head, checked but for its numbers' truth."""
    try:
        head = msgspec.convert(values, Head)
        row, shown = head.row, head.row.scores or head.row.subset
        for text in _texts(values):
            if not text.isprintable():
                raise ValueError(f"{text[:50]!r} holds signs that are not printed")
        if {*head.files} != {*MOST}:
            raise ValueError(f"its files are {', '.join(sorted(head.files))}")
        if len(json.dumps(row.options)) > 2048:
            raise ValueError("row.options are larger than 2 KiB")
        if not row.subset or (row.scores and {*row.scores} != {*row.subset}) or {*row.collapsed} != {*shown}:
            raise ValueError("row.scores, row.subset and row.collapsed are not of the same hold-outs")
        for score in (*row.scores.values(), *row.subset.values()):
            affordable = score.flops_per_token <= OVERSPEND * score.budget_flops_per_token
            if score.within_budget and not affordable:
                raise ValueError("row says that it is within a budget that its FLOPs exceed")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"entries/{name[:12]}/result.json: {str(error)[:300]}") from error
    return head


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
