"""The documents of one file: exactly the texts that stand in it, or one line that says what is wrong.

A txt is one document; its ends of lines become line feeds, whatever they were. Of a jsonl (one object a line) and of a
parquet, each row is one, as it is written there: nothing is guessed from how a string looks. Rows that lack the column,
or hold null, are no documents. All text is UTF-8.
"""

from __future__ import annotations

import codecs
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from duo.storage.location import one_line

SHOWN = 12  # names of other columns in a message
ROWS = 256  # rows of a parquet that are in memory at once


class Piece(NamedTuple):
    """A part of a file: every document of it is in exactly one of `of` pieces."""

    number: int = 0
    of: int = 1
    packed: bool = False
    """Whether the file is compressed, so that nobody can begin in its middle: then lines are dealt one by one."""


WHOLE = Piece()


def read_documents(path: Path, key: str, column: str) -> Iterator[str]:
    """The documents of a file, one after another; those of white space alone are among them.

    Raises:
        ValueError: in one line, with the key, the file and the way out: it cannot be read, or holds what is no text.
    """
    try:
        with path.open("rb") as file:
            yield from READERS[path.suffix](file, column, WHOLE)
    except Exception as error:  # every reader has exceptions of its own
        said = one_line(f"{key}: {path} cannot be read: {error or type(error).__name__}")
        raise ValueError(said) from error


def _read_txt(file: BinaryIO, column: str, piece: Piece = WHOLE) -> Iterator[str]:
    assert piece.of == 1  # it is one document
    text = _decode(file.read(), "it")
    yield text.replace("\r\n", "\n").replace("\r", "\n")  # as text files are read: a document is alike on all systems


class _Object(list[tuple[str, Any]]):
    """A JSON object as pairs, which keep what a dict would lose: a key that stands there twice."""


def _read_jsonl(file: BinaryIO, column: str, piece: Piece = WHOLE) -> Iterator[str]:
    columns: dict[str, None] = {}  # in order, which a set has not
    for where, line in _lines(file, piece):
        if not line.strip():
            continue
        pairs = _parse(line, where)
        values = [value for name, value in pairs if name == column]
        if len(values) > 1:
            raise ValueError(f"{where} has the column {column!r} {len(values)} times")
        if values and values[0] is not None:
            others = [name for name, value in pairs if isinstance(value, str)]
            yield _text(values[0], f"{where}: column {column!r}", others)
        if column not in columns:
            columns |= dict.fromkeys(name for name, _ in pairs[:SHOWN] if len(columns) < SHOWN)
            columns |= dict.fromkeys([column] * len(values))
    if columns and column not in columns and piece.of == 1:  # rows elsewhere in the file may have it
        raise ValueError(f"it has no column {column!r} but {', '.join(columns)}: set data.column")


def _lines(file: BinaryIO, piece: Piece) -> Iterator[tuple[str, bytes]]:
    """The lines of a piece, with what messages call them."""
    if piece.of == 1 or piece.packed:
        for row, line in itertools.islice(enumerate(file, 1), piece.number, None, piece.of):
            # some editors begin a file with it
            yield f"row {row}", line.removeprefix(codecs.BOM_UTF8) if row == 1 else line
        return
    size = file.seek(0, os.SEEK_END)
    start, end = (size * (piece.number + behind) // piece.of for behind in (0, 1))
    file.seek(max(start - 1, 0))
    if start:
        file.readline()  # what begins in front of the piece is another one's
    for row in itertools.count(1):
        if file.tell() >= end or not (line := file.readline()):
            return
        first = row == 1 and not start
        yield f"row {row} behind byte {start}", line.removeprefix(codecs.BOM_UTF8) if first else line


def _parse(line: bytes, where: str) -> _Object:
    text = _decode(line, where)
    try:
        pairs = json.loads(text, object_pairs_hook=_Object)
    except RecursionError:
        raise ValueError(f"{where} nests too deep") from None
    except ValueError as error:  # also of integers with thousands of digits
        raise ValueError(f"{where} is no JSON ({error}): give one object a line") from None
    if not isinstance(pairs, _Object):
        raise ValueError(f'{where} is {_kind(pairs)}: give one object a line, such as {{"text": "..."}}')
    return pairs


def _read_parquet(file: BinaryIO, column: str, piece: Piece = WHOLE) -> Iterator[str]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    # buffered: else whole row groups are in memory
    with ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as table:
        schema = table.schema_arrow
        if not table.metadata.num_rows:  # a shard that a filter emptied, which may have lost its types
            return
        if schema.names.count(column) != 1:
            count = "no" if column not in schema.names else "more than one"
            raise ValueError(f"it has {count} column {column!r} but {', '.join(schema.names[:SHOWN])}: set data.column")
        kind = schema.field(column).type
        if pa.types.is_null(kind):
            return
        if not _holds_text(kind):
            others = [field.name for field in schema if _holds_text(field.type)]
            raise ValueError(_no_text(f"column {column!r}", one_line(str(kind)), others))
        start, end = (table.metadata.num_rows * (piece.number + behind) // piece.of for behind in (0, 1))
        groups, before = _groups(table.metadata, start, end)
        batches = table.iter_batches(ROWS, row_groups=groups, columns=[column], use_threads=False)
        values = (value for batch in batches for value in _as_bytes(batch.column(column)))
        for row, value in enumerate(itertools.islice(values, start - before, end - before), start + 1):
            if value is not None:
                yield _decode(value, f"row {row}: column {column!r}")


def _groups(metadata: Any, start: int, end: int) -> tuple[list[int], int]:
    """The row groups of a parquet that hold its rows `start` to `end`, and how many rows stand in front of them."""
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    ends = list(itertools.accumulate(counts))
    groups = [group for group, last in enumerate(ends) if last > start and last - counts[group] < end]
    return groups, ends[groups[0]] - counts[groups[0]] if groups else start


def _holds_text(kind: Any) -> bool:
    """Whether an Arrow type is of strings, or of bytes, which may be UTF-8."""
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    tests = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "fixed_size_binary")
    return any(getattr(types, f"is_{name}")(kind) for name in tests)


def _as_bytes(values: Any) -> list[bytes | None]:
    """An Arrow array of text as bytes: Arrow does not check that its strings are UTF-8."""
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not pa.types.is_fixed_size_binary(values.type):
        values = values.cast(pa.large_binary())
    return values.to_pylist()


def _text(value: Any, where: str, others: list[str]) -> str:
    if not isinstance(value, str):
        raise ValueError(_no_text(where, _kind(value), others))
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise ValueError(f"{where} holds {half}, half of a surrogate pair, which is no character: mend it") from None
    return value


def _no_text(where: str, kind: str, others: list[str]) -> str:
    there = f", here {', '.join(others[:SHOWN])}" if others else ""
    return f"{where} holds {kind} and no text: set data.column to a column of strings{there}"


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start} (0x{data[error.start]:02x})"
        raise ValueError(f"{where} is no UTF-8 at {wrong}: convert the file to UTF-8") from None


def _kind(value: Any) -> str:
    names = {_Object: "an object", list: "a list", str: "a string", bool: "a bool", int: "a number", float: "a number"}
    return names.get(type(value), "null")


READERS: dict[str, Callable[[BinaryIO, str, Piece], Iterator[str]]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
