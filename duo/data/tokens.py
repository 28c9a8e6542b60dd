"""Packed tokens: made of documents, written, read, and known by their digests."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict, Features, Sequence, Value, disable_progress_bars, load_from_disk
from tokenizers import Tokenizer

from duo.data.token_text import bytes_taken, spells_text, token_bytes
from duo.data.tokenizer import end_token, literal, parts
from duo.progress import track
from duo.storage.files import naming

FORMAT = 4  # raised by every change that alters what is prepared
CHARACTERS = 1 << 19  # of text that are tokenized at once
ROWS = 1024  # sequences that are written at once
TOKEN = np.dtype([("id", np.int32), ("bytes", np.int32)])
"""A token of a document, and how many bytes of its text it takes."""


class Packed(NamedTuple):
    """A sequence of T+1 tokens."""

    tokens: np.ndarray
    document: int
    """Number, within the split, of the document that it lies in; -1 where it may lie in several (training)."""
    bytes: np.ndarray | None = None
    """Bytes of the text that each token takes; None where the tokens themselves say."""

    @classmethod
    def of(cls, row: np.ndarray, document: int, spelled: bool) -> Packed:
        """A sequence of `TOKEN`; `spelled` says that the tokens' own bytes are the text's."""
        return cls(row["id"], document, None if spelled else row["bytes"])


def pair_documents(tokens_NT: np.ndarray, document_N: np.ndarray) -> list[Packed]:
    """Sequences with the documents that they lie in."""
    return [Packed(tokens, number) for tokens, number in zip(tokens_NT, document_N.tolist(), strict=True)]


class Digests(NamedTuple):
    """SHA-256 of a tokenizer and of packed tokens."""

    train: str
    """With the training tokens: what a backbone depends on."""
    whole: str
    """With all tokens: what routers and scores depend on."""


def read(folder: Path) -> tuple[Tokenizer, dict[str, Dataset], Digests]:
    """Tokenizer, packed sequences by split, and their digests."""
    return (
        literal(Tokenizer.from_file(str(folder / "tokenizer.json"))),
        dict(load_from_disk(str(folder / "splits"))),
        Digests(**json.loads((folder / "digests.json").read_text())),
    )


def write(folder: Path, tokenizer: Tokenizer, splits: Mapping[str, Iterable[Packed]]) -> None:
    """Writes what `read` reads; `splits` holds the sequences of each split, and is gone through once.

    Raises:
        OSError: the folder cannot be written; it is named.
    """
    with naming(folder):
        (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
        written = _open_splits(folder / "splits", splits)
        # the digests' own pass over the rows writes them
        (folder / "digests.json").write_text(json.dumps(digests_of(tokenizer, written)._asdict()))


def digests_of(tokenizer: Tokenizer, splits: Mapping[str, Iterable[Packed]]) -> Digests:
    """The digests of a tokenizer with the sequences of each split, as int32, each followed by its document's number."""
    train = hashlib.sha256(tokenizer.to_str().encode())
    # int32 whatever they were kept as: published tokens take two bytes where that is enough
    for row in track(splits["train"], "training sequence"):
        train.update(row.tokens.astype(np.int32).tobytes())
    whole = train.copy()
    for name in sorted({*splits} - {"train"}):
        whole.update(name.encode())
        for row in track(splits[name], f"sequence of {name}"):
            whole.update(np.append(row.tokens, row.document).astype(np.int32).tobytes())
            if row.bytes is not None:
                whole.update(row.bytes.astype(np.int32).tobytes())
    return Digests(train.hexdigest(), whole.hexdigest())


def pack(tokenizer: Tokenizer, documents: Iterable[str], length: int) -> Iterator[np.ndarray]:
    """Documents one after another, an end token behind each, cut into sequences of `length`; the rest is left out.

    The sequences are of `TOKEN`.
    """
    rest = np.empty(0, dtype=TOKEN)
    for tokens in encode(tokenizer, documents):
        rest = np.concatenate([rest, tokens])
        whole = len(rest) // length * length
        yield from rest[:whole].reshape(-1, length)
        rest = rest[whole:]


def encode(tokenizer: Tokenizer, documents: Iterable[str], at_once: int = CHARACTERS) -> Iterator[np.ndarray]:
    """The tokens of documents one after another, an end token behind each, many at a time, as `TOKEN`.

    Args:
        at_once: characters of text, about, that are read and tokenized at a time.
    """
    end, spelled, byte_V = _facts(tokenizer)
    for chunk in _chunks(_marked(tokenizer, documents), at_once):
        texts = [text for text, _ in chunk]
        encode_all = tokenizer.encode_batch_fast if spelled else tokenizer.encode_batch  # the fast one knows no places
        found = []
        for (text, last), encoding in zip(chunk, encode_all(texts, add_special_tokens=False), strict=True):
            part = np.empty(len(encoding.ids) + last, dtype=TOKEN)
            part["id"] = encoding.ids + [end] * last
            if spelled:
                part["bytes"] = byte_V[part["id"]]
            else:
                taken = bytes_taken(text, encoding)
                # what no token takes, as white space that the tokenizer strips, stands in front of the end
                part["bytes"] = [*taken, *[len(text.encode()) - taken.sum()] * last]
            found.append(part)
        yield np.concatenate(found)


@lru_cache(4)  # it takes milliseconds, and is asked for every held-out document
def _facts(tokenizer: Tokenizer) -> tuple[int, bool, np.ndarray]:
    """The end of a document, whether tokens spell texts, and the bytes of each token."""
    end = end_token(tokenizer)
    assert end is not None  # as every tokenizer has that is trained or read
    return end, spells_text(tokenizer), token_bytes(tokenizer)


def _open_splits(folder: Path, splits: Mapping[str, Iterable[Packed]]) -> dict[str, Iterator[Packed]]:
    """A `DatasetDict` on disk, and its rows by split, each of which is written when it is taken."""
    disable_progress_bars()
    rows = {name: iter(split) for name, split in splits.items()}
    first = {name: [*itertools.islice(split, 1)] for name, split in rows.items()}
    length = len(first["train"][0].tokens)
    features = Features({"tokens": Sequence(Value("int32"), length=length), "document": Value("int32")})
    if first["train"][0].bytes is not None:
        features["bytes"] = Sequence(Value("int32"), length=length)
    # datasets keeps what it is given in memory: it makes the folders with one row, whose file is then replaced
    frame = {
        name: Dataset.from_dict({field: [getattr(row, field) for row in some] for field in features}, features=features)
        for name, some in first.items()
    }
    DatasetDict(frame).save_to_disk(str(folder))
    return {
        name: _write_rows(next((folder / name).glob("*.arrow")), itertools.chain(first[name], split), features)
        for name, split in rows.items()
        if first[name]
    }


def _write_rows(path: Path, rows: Iterable[Packed], features: Features) -> Iterator[Packed]:
    schema, left = features.arrow_schema, iter(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        while chunk := [*itertools.islice(left, ROWS)]:
            stream.write_batch(pa.record_batch([_column(chunk, field) for field in schema], schema=schema))
            yield from chunk


def _column(rows: list[Packed], field: pa.Field) -> pa.Array:
    """One field of some rows."""
    values = [getattr(row, field.name) for row in rows]
    if field.name == "document":
        return pa.array(values, type=field.type)
    flat = pa.array(np.concatenate(values).astype(np.int32, copy=False))
    return pa.FixedSizeListArray.from_arrays(flat, type=field.type)


def _marked(tokenizer: Tokenizer, documents: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """The pieces of documents, and whether each is its document's last."""
    for text in documents:
        *most, last = parts(tokenizer, text)
        yield from ((piece, False) for piece in most)
        yield last, True


def _chunks(items: Iterable[tuple[str, bool]], at_once: int) -> Iterator[list[tuple[str, bool]]]:
    """Lists of pieces that hold about so many characters together."""
    chunk: list[tuple[str, bool]] = []
    held = 0
    for item in items:
        chunk.append(item)
        held += len(item[0])
        if held >= at_once:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
