"""A stream's order: which sequence is the n-th, decided by seed and data alone, however many processes make it.

Documents are dealt to a fixed number of lanes, unit by unit, in an order of their own each epoch. A lane packs its
documents into sequences source by source, takes the sources by their weights, and shuffles what it has, a block at a
time. Sequence n of the stream is sequence n // lanes of lane n % lanes. No lane asks what another one does, so that any
process can make any lane, from the beginning of any block on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from duo.data.hub import read_shard
from duo.data.shards import open_shard, shard_file
from duo.data.shelf import document_digest
from duo.data.tokenizer import end_token, literal
from duo.data.tokens import encode
from duo.data.units import Unit

AT_ONCE = 1 << 16  # characters, or prepared tokens, that a lane reads of a source at a time
EPOCH, BLOCK = 0, 1  # what random numbers are drawn for


@dataclass(frozen=True)
class Source:
    """Documents that a stream mixes with others."""

    key: str
    column: str
    weight: float
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Plan:
    """All that decides a stream."""

    sources: tuple[Source, ...]
    tokenizer: str
    """As tokenizer.json."""
    length: int
    """Tokens of a sequence, T+1."""
    lanes: int
    shuffle: int
    """Sequences of all lanes that are shuffled at a time."""
    seed: tuple[int, ...]
    """Of the order."""
    held: frozenset[bytes]
    """Digests, with `held_seed`, of documents that are left out."""
    held_seed: int
    tokens: str
    """Digest of what the tokens depend on: shards, tokenizer, what is left out."""
    prepared: Path | None = None
    """Folder of the units' tokens."""

    @property
    def digest(self) -> str:
        """Of what the order depends on."""
        weights = [source.weight for source in self.sources]
        told = [self.tokens, weights, self.length, self.lanes, self.shuffle, self.seed]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


class Place(NamedTuple):
    """A place among the tokens that one lane gets of one source."""

    epoch: int = 0
    unit: int = 0
    """Of this lane in this epoch."""
    document: int = 0
    """Documents of the unit that end in front of it."""
    token: int = 0
    """Tokens of the next one that stand in front of it."""

    def behind(self, tokens: np.ndarray, end: int) -> Place:
        """The place behind these tokens of the same unit."""
        ends = np.flatnonzero(tokens == end)
        if not len(ends):
            return self._replace(token=self.token + len(tokens))
        return self._replace(document=self.document + len(ends), token=len(tokens) - 1 - int(ends[-1]))


class Reader:
    """What a plan's lanes read, in one process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        # made here: libraries of threads do not survive the fork of a process
        self._tokenizer = literal(Tokenizer.from_str(plan.tokenizer))
        end = end_token(self._tokenizer)
        assert end is not None  # as every tokenizer has that is trained or read
        self.end = end
        self._order = lru_cache(2 * len(plan.sources))(self._shuffle)

    def feed(self, number: int, lane: int, place: Place) -> Iterator[tuple[Place, np.ndarray]]:
        """The tokens of a lane's documents of one source, from the beginning of a document on, without end.

        Raises:
            ValueError: an epoch holds no document; or see `read_shard`.
        """
        while True:
            empty = place[:3] == (place.epoch, 0, 0)
            for unit in self._order(number, place.epoch)[lane :: self.plan.lanes][place.unit :]:
                for tokens in self._tokens(number, int(unit), place.document):
                    empty = False
                    yield place, tokens
                    place = place.behind(tokens, self.end)
                place = Place(place.epoch, place.unit + 1)
            if empty:
                raise ValueError(
                    f"{self.plan.sources[number].key}: its documents are too few, so that one of "
                    f"data.lanes={self.plan.lanes} gets none: give more, or lower it"
                )
            place = Place(place.epoch + 1)

    def texts(self, number: int, unit: int) -> Iterator[str]:
        """The documents of a unit that train."""
        source, held = self.plan.sources[number], self.plan.held
        for text in read_shard(source.units[unit].shard, source.key, source.column, *source.units[unit][1:]):
            if text.strip() and not (held and document_digest(text.encode(), self.plan.held_seed) in held):
                yield text

    def encode(self, number: int, unit: int, skip: int = 0) -> Iterator[np.ndarray]:
        """The tokens of a unit's documents behind the first `skip`."""
        texts = self.texts(number, unit)
        self._check(number, unit, skip, sum(1 for _ in islice(texts, skip)))
        return (chunk["id"] for chunk in encode(self._tokenizer, texts, AT_ONCE))

    def _tokens(self, number: int, unit: int, skip: int) -> Iterator[np.ndarray]:
        if self.plan.prepared is None:
            yield from self.encode(number, unit, skip)
            return
        tokens = open_shard(shard_file(self.plan.prepared, number, unit))
        start = 0
        if skip:
            ends = np.flatnonzero(tokens == self.end)
            self._check(number, unit, skip, min(skip, len(ends)))
            start = int(ends[skip - 1]) + 1
        for at in range(start, len(tokens), AT_ONCE):
            yield np.array(tokens[at : at + AT_ONCE])

    def _check(self, number: int, unit: int, wanted: int, found: int) -> None:
        if found < wanted:
            source = self.plan.sources[number]
            raise ValueError(
                f"{source.key}: shard {source.units[unit].shard} was cut short since the checkpoint: {found} documents "
                f"are there, of {wanted} and more: put it back, or train anew"
            )

    def _shuffle(self, number: int, epoch: int) -> np.ndarray:
        """The units of a source in the order of an epoch."""
        return np.random.default_rng((*self.plan.seed, EPOCH, number, epoch)).permutation(
            len(self.plan.sources[number].units)
        )


class _Packed:
    """The tokens of one source in one lane, one sequence after another; nothing is left out between epochs."""

    def __init__(self, reader: Reader, number: int, lane: int, place: Place) -> None:
        self._end, self._feed = reader.end, reader.feed(number, lane, place._replace(token=0))
        self._chunk, self._tokens, self._taken = place._replace(token=0), np.empty(0, dtype=np.int32), 0
        self.take(place.token)

    @property
    def place(self) -> Place:
        """Where the next token stands."""
        return self._chunk.behind(self._tokens[: self._taken], self._end)

    def take(self, count: int) -> np.ndarray:
        """The next tokens."""
        parts: list[np.ndarray] = []
        while count:
            if self._taken == len(self._tokens):
                (self._chunk, self._tokens), self._taken = next(self._feed), 0
            parts.append(self._tokens[self._taken : self._taken + count])
            self._taken, count = self._taken + len(parts[-1]), count - len(parts[-1])
        return np.concatenate([*parts, self._tokens[:0]])


class Lane:
    """The sequences of one lane, in order.

    Args:
        reader: reads for it.
        number: which lane it is.
        state: `state` of the same lane, of this process or another; none: it begins at its beginning.
    """

    def __init__(self, reader: Reader, number: int, state: dict[str, Any] | None = None) -> None:
        self._plan, self._number = reader.plan, number
        count = len(reader.plan.sources)
        given = state or {"row": 0, "taken": [0] * count, "places": [[*Place()]] * count}
        self._first = self._stop = given["row"]
        self._taken_S = np.array(given["taken"], dtype=np.int64)
        self._weight_S = np.array([source.weight for source in reader.plan.sources])
        self._packed = [_Packed(reader, source, number, Place(*place)) for source, place in enumerate(given["places"])]
        self.state: dict[str, Any] = given
        """Where its present block begins, as plain numbers."""

    def row(self, index: int) -> np.ndarray:
        """Sequence `index` of the lane, (T+1,); indices never fall."""
        while index >= self._stop:
            self._fill()
        return self._rows[index - self._first]

    def _fill(self) -> None:
        """Makes the next block."""
        first, block = self._stop, max(self._plan.shuffle // self._plan.lanes, 1)
        # first blocks are of different sizes: else all lanes would make their next ones at the same time
        size = block if first else max(block * (self._number + 1) // self._plan.lanes, 1)
        places = [[*packed.place] for packed in self._packed]
        self.state = {"row": first, "taken": self._taken_S.tolist(), "places": places}
        rows = np.stack([self._next() for _ in range(size)])
        generator = np.random.default_rng((*self._plan.seed, BLOCK, self._number, first))
        self._rows, self._first, self._stop = rows[generator.permutation(size)], first, first + size

    def _next(self) -> np.ndarray:
        """A sequence of the source that is furthest behind its weight."""
        source = int(np.argmax(self._weight_S * (self._taken_S.sum() + 1) - self._taken_S))
        self._taken_S[source] += 1
        return self._packed[source].take(self._plan.length)
