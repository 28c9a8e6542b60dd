"""Structs with scores to and from files: the fields as JSON, what the scores are made of as safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import Struct, structs
from safetensors.numpy import load_file, save

from duo.evaluation.intervals import Sequences
from duo.evaluation.score import Score
from duo.storage.files import replacing

SCHEMA = 5  # raise it with every change of what is written
T = TypeVar("T", bound=Struct)


def find_scores(value: Any, path: str = "") -> Iterator[tuple[str, Score]]:
    """Every score inside structs and dicts, with its path: the names that lead to it, with slashes between them."""
    if isinstance(value, Score):
        yield path.removesuffix("/"), value
    elif isinstance(value, Struct):
        yield from find_scores(structs.asdict(value), path)
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from find_scores(part, f"{path}{name}/")


def pack_arrays(value: Struct) -> bytes:
    """What the scores inside are made of, as safetensors: the score's path, a slash, and the field of `Sequences`."""
    return save(
        {
            f"{path}/{name}": np.ascontiguousarray(array)
            for path, score in find_scores(value)
            for name, array in score.sequences._asdict().items()
        }
    )


def attach_arrays(value: Any, arrays: dict[str, np.ndarray], path: str = "") -> Any:
    """The same structs, dicts and scores, each score with what it is made of; raises KeyError where that is missing."""
    if isinstance(value, Score):
        return value.made_of(Sequences(*(arrays[f"{path}{name}"] for name in Sequences._fields)))
    if isinstance(value, dict):
        return {name: attach_arrays(part, arrays, f"{path}{name}/") for name, part in value.items()}
    if isinstance(value, Struct):
        return structs.replace(value, **attach_arrays(structs.asdict(value), arrays, path))
    return value


def save_struct(value: Struct, folder: Path, name: str) -> None:
    """Writes `sequences.safetensors`, and then the JSON, with this format's number; raises OSError naming the file."""
    with replacing(folder / "sequences.safetensors") as path:
        path.write_bytes(pack_arrays(value))
    fields = {"schema": SCHEMA} | msgspec.to_builtins(value)  # leaves out what is unset
    with replacing(folder / name) as path:  # last: who finds the JSON finds the arrays too
        path.write_bytes(msgspec.json.format(msgspec.json.encode(fields), indent=1) + b"\n")


def load_struct(kind: type[T], folder: Path, name: str) -> T:
    """What `save_struct` wrote.

    Raises:
        ValueError: a file is damaged, or of another version.
    """
    path = folder / name
    try:
        fields, arrays = msgspec.json.decode(path.read_bytes()), load_file(folder / "sequences.safetensors")
        if (schema := fields.pop("schema", None)) != SCHEMA:
            raise ValueError(f"it is of another duo: its schema is {schema}, this one writes {SCHEMA}")
        found: T = attach_arrays(msgspec.convert(fields, kind), arrays)
        return found
    except Exception as error:  # safetensors has exceptions of its own
        raise ValueError(f"{path} cannot be read ({error}): delete it to evaluate again") from error
