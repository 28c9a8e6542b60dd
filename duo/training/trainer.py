"""Training a stage with Lightning, so that it may be killed at any moment and goes on where it was."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.throughput import Throughput
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from duo.storage.files import replacing
from duo.training.lightning_module import DuoModule


def quieten() -> None:
    """Leaves out what Lightning says of devices and products, and warnings that are not a user's."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning|torch")


def device_of(options: dict[str, Any]) -> torch.device:
    """The device that Lightning gives this process, by the arguments of `lightning.Trainer` that a recipe gives.

    Raises:
        ValueError: it has no such device.
    """
    # a Trainer for the sake of its device: it should say nothing and leave no files
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    chosen: dict[str, Any] = dict.fromkeys(silent, False)
    chosen |= {key: options[key] for key in ("accelerator", "devices", "strategy", "num_nodes") if key in options}
    try:
        trainer = L.Trainer(**chosen)
    except Exception as error:  # Lightning raises several kinds
        raise ValueError(f"trainer: {str(error).strip().splitlines()[0]}") from error
    return trainer.strategy.root_device


def fit(module: DuoModule, data: L.LightningDataModule, folder: Path, title: str, options: dict[str, Any]) -> None:
    """Trains for `module.config.steps` optimizer steps, from the last checkpoint in `folder` if there is one.

    Leaves logs in `folder/logs` (CSV, one version per start) and `folder/tensorboard`, and `folder/last.ckpt`.

    Args:
        title: shown at the progress bar.
        options: arguments of `lightning.Trainer`; `logger` may be true or false.

    Raises:
        ValueError: the checkpoint cannot be read.
        FloatingPointError: the loss is not finite.
    """
    config, last = module.config, folder / "last.ckpt"
    callbacks: list[Callback] = [TokensPerSecond()]
    if options.get("enable_progress_bar", True):
        callbacks.append(Bar(title, refresh_rate=config.log_every))
    callbacks.append(
        # one file under one name: a version counter would leave last-v1.ckpt beside it
        ModelCheckpoint(
            folder, last.stem, every_n_train_steps=config.checkpoint_every, save_top_k=1, enable_version_counter=False
        )
    )
    options = {"enable_model_summary": False, "plugins": [AtomicCheckpointIO()], **options}
    if options.pop("logger", True):
        options["logger"] = [
            CSVLogger(folder, "logs", flush_logs_every_n_steps=1),  # at once: a killed run keeps its curve
            TensorBoardLogger(folder, "tensorboard", version=""),
        ]
    else:
        options["logger"] = False
    # no sampler of Lightning's: duo.data shares every batch among the processes
    trainer = L.Trainer(
        max_steps=config.steps, log_every_n_steps=config.log_every, use_distributed_sampler=False,
        callbacks=callbacks, **options,
    )  # fmt: skip
    try:
        # weights_only: no pickle, whoever wrote the checkpoint
        trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True)
    except SIGTERMException as error:
        print(f"{title}: stopped by SIGTERM; the same command goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(143) from error  # 128 + SIGTERM, as a shell reports it
    except FloatingPointError as error:
        kept = f"the last good checkpoint is {last}" if last.exists() else "there was no checkpoint yet"
        raise FloatingPointError(f"{title}: {error}; {kept}") from error
    if trainer.global_step < config.steps:
        raise ValueError(f"{title} ended at step {trainer.global_step} of {config.steps}: the same command goes on")
    module.float()  # precisions like bf16-true convert it in place


def loss_curve(folder: Path) -> list[tuple[int, float]]:
    """(step, loss) as logged in `folder/logs`; where a run was continued, the later start counts.

    Empty where nothing was logged.
    """
    curve: dict[int, float] = {}
    # by number: version_10 comes after version_9
    for file in sorted(folder.glob("logs/version_*/metrics.csv"), key=lambda file: int(file.parent.name[8:])):
        header, *lines = (line.split(",") for line in (file.read_text() or "step").splitlines())
        points = [dict(zip(header, line, strict=True)) for line in lines if len(line) == len(header)]  # none cut short
        losses = [(int(point["step"]), float(point["loss"])) for point in points if point.get("loss")]
        if losses:
            curve = {step: loss for step, loss in curve.items() if step < losses[0][0]} | dict(losses)
    return [*curve.items()]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints written under another name beside their own, then renamed; a damaged one is named."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint that is either whole or not there."""
        with replacing(Path(path)) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Reads a checkpoint.

        Raises:
            ValueError: it is cut short or damaged.
        """
        try:
            return super().load_checkpoint(path, *arguments, **options)
        except Exception as error:  # torch raises several kinds
            raise ValueError(f"the checkpoint {path} cannot be read: delete it to train this stage anew") from error


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


class Bar(TQDMProgressBar):
    """Lightning's bar under a stage's name, without version numbers."""

    def __init__(self, title: str, refresh_rate: int) -> None:
        super().__init__(refresh_rate)
        self._title = title

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Names the stage instead of the epoch."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(self._title)

    def get_metrics(self, *arguments: Any) -> dict[str, Any]:
        """Loss and tokens per second."""
        metrics = super().get_metrics(*arguments)
        metrics.pop("v_num", None)
        if "tokens_per_second" in metrics:
            metrics["tokens_per_second"] = f"{metrics['tokens_per_second']:,.0f}"
        return metrics
