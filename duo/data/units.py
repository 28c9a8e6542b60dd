"""What a stream's documents are dealt by: its shards, or pieces of them where they are few."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from duo.data.hub import kind_of

PER_LANE = 4  # units, at least: lanes get through their documents at about the same time
ENDS = 1 << 16  # bytes of a file's beginning and of its end by which it is known


class Unit(NamedTuple):
    """A shard, or one of `of` pieces of it."""

    shard: Path | str
    number: int
    of: int


def cut(shards: Sequence[Path | str], lanes: int, key: str) -> tuple[Unit, ...]:
    """The units of a source, each shard in as few pieces as give every lane some; a text file is one document.

    Raises:
        ValueError: there are fewer units than lanes.
    """
    whole = sum(kind_of(shard) == ".txt" for shard in shards)
    pieces = max(-(-(PER_LANE * lanes - whole) // max(len(shards) - whole, 1)), 1)
    counts = [1 if kind_of(shard) == ".txt" else pieces for shard in shards]
    units = tuple(
        Unit(shard, number, count) for shard, count in zip(shards, counts, strict=True) for number in range(count)
    )
    if len(units) < lanes:
        raise ValueError(f"{key}: {len(units)} documents are too few for data.lanes={lanes}: give more, or lower it")
    return units


def identify(shard: Path | str) -> list[Any]:
    """What tells a shard from others, wherever it lies: name, size and a digest of its ends; on a hub, its address."""
    if "://" in str(shard):  # of one revision, which never changes
        return [str(shard)]
    size = os.path.getsize(shard)
    with open(shard, "rb") as file:
        ends = file.read(ENDS)
        file.seek(max(size - ENDS, 0))
        ends += file.read(ENDS)
    return [os.path.basename(shard), size, hashlib.sha256(ends).hexdigest()]
