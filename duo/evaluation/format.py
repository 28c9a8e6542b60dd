"""Structs with scores to and from files: the fields as JSON, what the scores are made of as safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import Struct, structs
from safetensors.numpy import load_file, save

from duo.backbone import MODULES
from duo.evaluation.intervals import Sequences
from duo.evaluation.score import Score
from duo.storage.files import replacing

SCHEMA = 6  # raise it with every change of what is written
WHOLE = ("tokens_B", "used_TLM", "sequence_B", "document_B")
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
    """What the scores inside are made of, as safetensors: the score's path, a slash, and the field of `Sequences`.

    Whole numbers take as few bytes as hold them, ids of sequences are those after the one in `first_sequence`, and
    `used_TLM` is an array for each module that is used.
    """
    arrays: dict[str, np.ndarray] = {}
    for path, score in find_scores(value):
        fields = score.sequences._asdict()
        fields["first_sequence"] = fields["sequence_B"][:1]
        fields["sequence_B"] = fields["sequence_B"] - fields["first_sequence"]
        used_TLM = fields.pop("used_TLM")
        fields |= {
            f"used_{name}": used_TLM[..., module] for module, name in enumerate(MODULES) if used_TLM[..., module].any()
        }
        arrays |= {f"{path}/{name}": _in_few_bytes(array) for name, array in fields.items()}
    return save(arrays)


def _in_few_bytes(array: np.ndarray) -> np.ndarray:
    """The same values, contiguous, whole numbers of 0 and more in the smallest type that holds them all."""
    kind = array.dtype if array.dtype.kind == "f" else np.min_scalar_type(int(array.max(initial=0)))
    return np.ascontiguousarray(array, kind)


def attach_arrays(value: Any, arrays: dict[str, np.ndarray], path: str = "") -> Any:
    """The same structs, dicts and scores, each score with what it is made of; raises KeyError where that is missing."""
    if isinstance(value, Score):
        return value.made_of(sequences_of(arrays, path))
    if isinstance(value, dict):
        return {name: attach_arrays(part, arrays, f"{path}{name}/") for name, part in value.items()}
    if isinstance(value, Struct):
        return structs.replace(value, **attach_arrays(structs.asdict(value), arrays, path))
    return value


def sequences_of(arrays: dict[str, np.ndarray], path: str) -> Sequences:
    """One score's arrays as they were before they were packed: whole numbers in 64 bits, ids of sequences whole."""
    fields = {name.removeprefix(path): array for name, array in arrays.items() if name.startswith(path)}
    used = [fields.get(f"used_{name}") for name in MODULES]
    one = next((array for array in used if array is not None), None)
    if one is None:
        raise KeyError(f"{path}used_{MODULES[-1]}")
    fields["used_TLM"] = np.stack([np.zeros_like(one) if array is None else array for array in used], axis=-1)
    whole = {name: fields[name].astype(np.int64) for name in WHOLE}
    whole["sequence_B"] += fields["first_sequence"].astype(np.int64)  # 64 bits without a sign cannot be added
    return Sequences(loss_ZB=fields["loss_ZB"], **whole)


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
