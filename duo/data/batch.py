"""What training and evaluation are fed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Batch(NamedTuple):
    """Packed sequences of one domain."""

    tokens_BT: Tensor
    """Inputs."""
    labels_BT: Tensor
    """The token after each input; -1 where there is none to score."""
    sequence_B: Tensor
    """Ids of the sequences, different in every split."""
    document_B: Tensor
    """Number, within the split, of the document that a sequence lies in; -1 where it lies in several (training)."""
    bytes_B: Tensor
    """Bytes of text that a sequence's labels stand for."""
    domain: str
    """The split: `train`, a calibration set or a hold-out."""
    tokenizer: str = ""
    """Digest of the tokenizer that made the tokens; empty where nobody says."""

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        tensors = {name: part.to(device) for name, part in self._asdict().items() if isinstance(part, Tensor)}
        return self._replace(**tensors)  # type: ignore[arg-type]


class Batches(Sequence[Batch]):
    """The batches of some rows of a split in order; any of them may be looked up again."""

    def __init__(self, rows: np.ndarray, size: int, batch: Callable[[np.ndarray], Batch]) -> None:
        self._rows, self._size = rows, size
        self._batch = batch

    def __len__(self) -> int:
        return -(-len(self._rows) // self._size)

    def __getitem__(self, index: Any) -> Any:
        """The batch of that index."""
        if not 0 <= index < len(self):
            raise IndexError(index)  # what ends a loop over a Sequence
        return self._batch(self._rows[index * self._size : (index + 1) * self._size])


def sequence_ids(split: str, rows: np.ndarray) -> np.ndarray:
    """Ids of a split's sequences, as `Batch.sequence_B` has them; those of two splits lie 2^31 and more apart."""
    # not hash(), which differs between processes; 32 bits and 31 of rows fit int64
    return rows + (zlib.crc32(split.encode()) << 31)
