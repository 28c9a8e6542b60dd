"""What one batch gave, and the shelf where it is kept until the score of all is: a killed search goes on from there."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from duo.backbone import PADDING, Backbone, Run
from duo.backbone.flops import budget_flops, run_flops
from duo.backbone.model import count_positions
from duo.data.batch import Batch
from duo.evaluation.decide import Spent, scored
from duo.routing.loss import run_loss
from duo.routing.router import Router
from duo.storage.files import replacing


class Record(NamedTuple):
    """One batch; per-sequence arrays, and sums over its scored tokens."""

    sequence_B: np.ndarray
    document_B: np.ndarray
    loss_B: np.ndarray
    tokens_B: np.ndarray
    bytes: int
    used_TLM: np.ndarray
    flops: float
    budget_flops: float
    spent: Spent


def record_of(backbone: Backbone, router: Router, batch: Batch, run: Run, spent: Spent) -> Record:
    """What a pass over the batch, and deciding on it, gave."""
    scored_BT, position_BT = scored(batch), count_positions(batch.tokens_BT)
    labels_BT = batch.labels_BT.masked_fill(~scored_BT, PADDING)
    weight_BTLM = run.weight_BTLM.double() * scored_BT[..., None, None]
    budgeted = budget_flops(backbone.config, router.spec.budget, position_BT[scored_BT])
    return Record(
        sequence_B=batch.sequence_B.cpu().numpy(),
        document_B=batch.document_B.cpu().numpy(),
        loss_B=run_loss(run, labels_BT).double().sum(1).cpu().numpy(),
        tokens_B=scored_BT.sum(1).cpu().numpy(),
        bytes=int(batch.bytes_B.sum()),
        used_TLM=weight_BTLM.sum(0).cpu().numpy(),
        flops=float(run_flops(backbone.config, run.weight_BTLM, position_BT)[scored_BT].sum()),
        budget_flops=budgeted * int(scored_BT.sum()),
        spent=spent,
    )


@dataclass(frozen=True)
class Shelf:
    """Records of the batches that an evaluation has behind it.

    Args:
        folder: for records of this evaluation alone; None: nothing is kept.
    """

    folder: Path | None = None

    def part(self, name: str) -> Shelf:
        """A shelf within the shelf."""
        return self if self.folder is None else Shelf(self.folder / name)

    def find(self, batch: Batch) -> Record | None:
        """The record of a batch, if there is one that can be read."""
        if self.folder is None:
            return None
        with contextlib.suppress(OSError, msgspec.DecodeError):
            content = self._path(batch).read_bytes()
            record = msgspec.json.decode(content, type=Record, dec_hook=lambda _, value: np.array(value))
            return record if np.array_equal(record.sequence_B, batch.sequence_B.cpu().numpy()) else None
        return None

    def holds(self, batch: Batch) -> bool:
        """Whether there is a record of a batch here, or on a shelf within this one."""
        return self.folder is not None and any(self.folder.rglob(self._path(batch).name))

    def keep(self, batch: Batch, record: Record) -> None:
        """Puts a batch's record there; raises OSError where it cannot be written."""
        if self.folder is not None:
            with replacing(self._path(batch)) as path:
                path.write_bytes(msgspec.json.encode(record, enc_hook=_plain))  # its numbers come back bit for bit

    def clear(self) -> None:
        """Removes what is kept: the score is."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, batch: Batch) -> Path:
        assert self.folder is not None
        return self.folder / f"{int(batch.sequence_B[0])}.json"


def _plain(array: Any) -> Any:
    return array.tolist()
