"""What a training does beside its steps: it tells its progress and rate, and stops where nothing is lost."""

from __future__ import annotations

import logging
import signal
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.throughput import Throughput
from lightning.pytorch.callbacks import Callback

from duo.progress import Part
from duo.storage.signals import Asked, Stopped

log = logging.getLogger(__name__)


class StopWhenAsked(Callback):
    """Ends the training behind an optimizer step, with a checkpoint, once a signal has asked for it."""

    def __init__(self, asked: Asked, checkpoint: Path) -> None:
        self._asked, self._checkpoint = asked, checkpoint
        self._step, self._stops = 0, False

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Takes the signals back, of which Lightning has taken some by now."""
        self._asked.listen()
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Looks whether to stop; not between the batches of one step, whose gradients no checkpoint holds."""
        if trainer.global_step == self._step:
            return
        self._step, stop = trainer.global_step, self._asked.number is not None
        if trainer.world_size > 1:  # all of them or none; asking costs time, so not at every step
            due = trainer.global_step % module.config.log_every == 0
            stop = due and trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop and trainer.global_step < module.config.steps:
            trainer.save_checkpoint(self._checkpoint)
            self._stops = True

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """Ends the training, now that the last step is in the logs.

        Raises:
            Stopped: it was asked to.
        """
        if self._stops:
            raise Stopped(self._asked.number or signal.SIGTERM)  # or: another process was asked


class TokensPerSecond(Callback):
    """Logs the rate of training over the last steps, all devices together."""

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Starts the clock."""
        # it takes differences, for which two points are needed
        self._throughput = Throughput(world_size=trainer.world_size, window_size=max(module.config.log_every, 2))
        self._start = time.perf_counter()
        self._batches = self._tokens = 0

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Counts a batch."""
        self._batches += 1
        self._tokens += batch.tokens_BT.numel()
        # only tokens are shown; it asks for samples, no more of them than tokens
        self._throughput.update(
            time=time.perf_counter() - self._start, batches=self._batches, samples=self._batches, lengths=self._tokens
        )
        if trainer.global_step % module.config.log_every == 0:
            rates = self._throughput.compute()
            # the sum over devices is there only where there are several
            rate = rates.get("items_per_sec", rates.get("device/items_per_sec"))
            if rate is not None:
                module.log("tokens_per_second", float(rate), prog_bar=True)


class Progress(Callback):
    """Tells how many steps are done, and says where a stage goes on that was stopped.

    Args:
        title: what the stage is called.
        part: its steps.
    """

    def __init__(self, title: str, part: Part) -> None:
        self._title, self._part = title, part

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Counts from the step that a checkpoint was of."""
        if step := trainer.global_step:
            log.info("%s  going on from step %s of %s", self._title, f"{step:,}", f"{module.config.steps:,}")
        self._part.begin(step)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Counts the steps; loss and rate are those that were logged last."""
        step = trainer.global_step
        if step == self._part.done:
            return  # gradients are still accumulated
        note = None
        if step % module.config.log_every == 0:
            told = trainer.progress_bar_metrics
            texts = {"loss": "loss {:.3f}", "tokens_per_second": "{:,.0f} tokens/s"}
            note = ", ".join(text.format(float(told[name])) for name, text in texts.items() if name in told)
        self._part.go_on(step, note)
