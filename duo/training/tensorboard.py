"""Curves for TensorBoard, written at once and by no thread of their own.

Lightning's logger writes from a thread: a signal or a full disk can end the thread while the training waits for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar


class TensorBoard(Logger):
    """Event files in a folder, one for each start."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._writer: EventsWriter | None = None

    @property
    def name(self) -> str:
        """What Lightning calls it."""
        return "tensorboard"

    @property
    def version(self) -> str:
        """None: starts are told apart by their files."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Writes a point of each curve."""
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(self._folder / "events"), f".{os.getpid()}")
        for name, value in metrics.items():
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        self._writer.flush()

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        """Leaves them out: the run's recipe.yaml has them."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
