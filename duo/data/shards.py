"""Tokens of a stream's units, made once: plain numpy files, each whole or not there, read through memory maps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from duo.storage.files import replacing


def shard_file(folder: Path, source: int, unit: int) -> Path:
    """The file of a unit's tokens."""
    return folder / f"{source:03d}-{unit:06d}.npy"


def write_shard(path: Path, chunks: Iterable[np.ndarray], vocabulary: int) -> int:
    """Writes tokens, of two bytes each where the vocabulary lets them; returns how many."""
    kind = np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)
    count = 0
    with replacing(path) as temporary, temporary.open("wb") as file:
        _write_header(file, kind, 0)
        for chunk in chunks:
            file.write(chunk.astype(kind).tobytes())
            count += len(chunk)
        file.seek(0)
        _write_header(file, kind, count)  # as long as the first one: numpy leaves room for a larger number
    return count


def open_shard(path: Path) -> np.ndarray:
    """The tokens of a file, of which only what is looked at is read.

    Raises:
        ValueError: it is cut short or damaged.
    """
    try:
        return np.load(path, mmap_mode="r")
    except Exception as error:  # numpy raises several kinds
        raise ValueError(f"the prepared shard {path} cannot be read: delete it, and it is made again") from error


def _write_header(file: Any, kind: np.dtype, count: int) -> None:
    told = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, told)
