"""Training a stage with Lightning, so that it may be killed at any moment and goes on where it was."""

from __future__ import annotations

import atexit
import io
import logging
import signal
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException

from duo.progress import at, count
from duo.storage import processes
from duo.storage.files import replacing
from duo.storage.signals import Stopped, waiting
from duo.training.callbacks import Progress, StopWhenAsked, TokensPerSecond
from duo.training.lightning_module import DuoModule
from duo.training.loggers import check_installed, loggers_of
from duo.training.options import OURS, check_device, running_dense
from duo.training.strategies import SHARDED, give_back, shards, take_weights

# of the keys and values that a block returns; nobody writes into them
VIEW = r"FSDP2-wrapped module \(FSDPBlock\) returned a view tensor"


def quieten() -> None:
    """Leaves out what Lightning says of devices and products, and the warnings that every run would show."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for category in (DeprecationWarning, FutureWarning):  # for those who write Lightning and torch
        warnings.filterwarnings("ignore", module="lightning|torch", category=category)
    for beginning in ("Checkpoint directory .* exists", "The number of training batches .* is smaller", VIEW):
        warnings.filterwarnings("ignore", message=beginning)


def _end_all(observer: Any) -> None:
    """Ends all processes, one of which has died, in one line; Lightning's own way kills this one without a word."""
    for process in observer._child_processes:
        process.kill()
    processes.end_without_the_others()


def join_world(options: dict[str, Any]) -> torch.device:
    """The device that Lightning gives this process; and from now on duo knows which of several processes this is.

    Args:
        options: arguments of `lightning.Trainer` that a recipe gives.

    Raises:
        ValueError: it has no such device or tracker, the device cannot do what is asked of it, or the environment says
            that this is another process than Lightning finds.
    """
    check_installed(options)
    trainer = trainer_of(options)
    _check_environment(trainer)
    processes.join(trainer.global_rank)
    check_device(options, trainer.strategy.root_device)
    return trainer.strategy.root_device


def trainer_of(options: dict[str, Any]) -> L.Trainer:
    """A Trainer for the sake of the devices and processes that it finds, which says nothing and leaves no files.

    Raises:
        ValueError: it finds no such devices.
    """
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    chosen: dict[str, Any] = dict.fromkeys(silent, False)
    chosen |= {key: options[key] for key in ("accelerator", "devices", "strategy", "num_nodes") if key in options}
    try:
        return L.Trainer(**chosen)
    except Exception as error:  # Lightning raises several kinds
        launched = processes.launched_as()  # whoever is not launched by anybody has another trouble
        way_out = f" ({processes.on_its_own(launched)})" if launched else ""
        raise ValueError(f"trainer: {str(error).strip().splitlines()[0]}{way_out}") from error


def _check_environment(trainer: L.Trainer) -> None:
    """Raises ValueError where a launcher's variable says that this is another process than Lightning finds.

    Such a process would train on its own, and leave all writing to a process that is not there.
    """
    rank, world = trainer.global_rank, trainer.world_size
    found = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": trainer.local_rank}
    if not TorchElasticEnvironment.detect() and SLURMEnvironment.job_name() not in ("bash", "interactive"):
        found |= {"SLURM_PROCID": rank, "SLURM_NTASKS": world}  # torchrun has ranks of its own inside SLURM's tasks
    wrong = {name: said for name, said in processes.launched_as().items() if said != found.get(name, said)}
    if wrong:
        said = " and ".join(f"{name}={value}" for name, value in wrong.items())
        raise ValueError(
            f"{said} in the environment, but Lightning finds process {rank} of {world}: for one run on several "
            f"processes set trainer.devices, trainer.num_nodes and trainer.strategy; {processes.on_its_own(wrong)}"
        )


def fit(
    module: DuoModule, data: L.LightningDataModule, folder: Path, title: str, options: dict[str, Any],
    about: Mapping[str, Any] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Trains for `module.config.steps` optimizer steps, from the last checkpoint in `folder` if there is one.

    Leaves logs in `folder/logs` (CSV, one version per start), `folder/tensorboard` and with the tracker that options
    name, and `folder/last.ckpt`.

    Args:
        title: what it is called.
        options: a recipe's `trainer` section: arguments of `lightning.Trainer`, of which `logger` may be true, false,
            or a tracker's name, and duo's own.
        about: what a tracker says of the run: recipe and digests.

    Raises:
        ValueError: the checkpoint cannot be read, or the device cannot do what is asked of it.
        FloatingPointError: the loss is not finite.
    """
    config, last = module.config, folder / "last.ckpt"
    trained = take_weights(module) if shards(module, options) else module
    # one file under one name: a version counter would leave last-v1.ckpt beside it
    kept = ModelCheckpoint(
        folder, last.stem, every_n_train_steps=config.checkpoint_every, save_top_k=1, enable_version_counter=False
    )
    # duo's own bar: Lightning's floods files, and knows nothing of steps done before
    arguments = {key: value for key, value in options.items() if key not in OURS}
    arguments |= {"enable_model_summary": options.get("enable_model_summary", False), "enable_progress_bar": False}
    arguments["logger"] = loggers_of(options.get("logger", True), folder, title, about)
    if trained is module and options.get("strategy") == SHARDED:
        arguments["strategy"] = "ddp"  # on a whole copy each
    try:
        with waiting() as asked, at(title), count("step", config.steps) as part:
            # default_root_dir: Lightning looks there for checkpoints that nobody named
            # no sampler of Lightning's: duo.data shares every batch among the processes
            callbacks: list[Callback] = [TokensPerSecond(), Progress(title, part), kept, StopWhenAsked(asked, last)]
            trainer = L.Trainer(
                default_root_dir=folder, max_steps=config.steps, log_every_n_steps=config.log_every,
                use_distributed_sampler=False, callbacks=callbacks, plugins=_plugins(), **arguments,
            )  # fmt: skip
            device = trainer.strategy.root_device
            check_device(options, device)
            if isinstance(launcher := trainer.strategy.launcher, _SubprocessScriptLauncher):
                atexit.register(launcher.kill, signal.SIGTERM)  # whom it starts, it does not leave behind
                _ChildProcessObserver._terminate_all = _end_all  # type: ignore[method-assign, assignment]
            # weights_only: no pickle, whoever wrote the checkpoint
            with running_dense(trained.backbone, options, device):
                trainer.fit(trained, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True)
    except SIGTERMException as error:  # Lightning heard it, before `asked` took the signals back
        raise Stopped(signal.SIGTERM) from error
    except FloatingPointError as error:
        left = f"the last good checkpoint is {last}" if last.exists() else "there was no checkpoint yet"
        raise FloatingPointError(f"{title}: {error}; {left}") from error
    if trainer.global_step < config.steps:
        raise ValueError(f"{title} ended at step {trainer.global_step} of {config.steps}: the same command goes on")
    if trained is not module:
        give_back(trained, module)
    module.float()  # precisions like bf16-true convert it in place


def _plugins() -> list[Any]:
    """How checkpoints are written; and on SLURM no checkpoint of Lightning's own, taken in the middle of a step."""
    on_slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()  # Lightning asks in this order
    return [AtomicCheckpointIO(), *([SLURMEnvironment(auto_requeue=False)] if on_slurm else [])]


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
        # not torch's own writing, whose error names no full disk, nor Lightning's, which goes by the temporary folder
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Reads a checkpoint.

        Raises:
            ValueError: it is cut short or damaged.
        """
        try:
            return super().load_checkpoint(path, *arguments, **options)
        except Exception as error:  # torch raises several kinds
            raise ValueError(f"the checkpoint {path} cannot be read: delete it to train this stage anew") from error
