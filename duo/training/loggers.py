"""Where the curves of a training go: CSV and TensorBoard always, and a tracker if a recipe names one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from duo.routing.registry import unknown

PROJECT = "duo"
MLFLOW_SERVER = os.environ.get("MLFLOW_TRACKING_URI")  # now: mlflow writes there itself where it last was


class Tracker(NamedTuple):
    """One of Lightning's loggers for a service outside."""

    module: str
    """What it imports."""
    package: str
    """What is to be installed for it."""
    make: Callable[[Path, str], Any]
    """The logger of a training's folder and title."""


def _wandb(folder: Path, title: str) -> Any:
    from lightning.pytorch.loggers import WandbLogger

    # offline where nobody has logged in: `wandb sync` sends it later
    offline = "WANDB_API_KEY" not in os.environ and "WANDB_MODE" not in os.environ
    return WandbLogger(project=PROJECT, name=title, save_dir=folder, offline=offline)


def _mlflow(folder: Path, title: str) -> Any:
    from lightning.pytorch.loggers import MLFlowLogger

    where = MLFLOW_SERVER
    if where is None:  # no server: files beside the others, for which newer versions want to be asked
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        where = (folder.absolute() / "mlruns").as_uri()
    return MLFlowLogger(experiment_name=PROJECT, run_name=title, tracking_uri=where)


def _comet(folder: Path, title: str) -> Any:
    from lightning.pytorch.loggers import CometLogger

    # offline where nobody has logged in: `comet upload` sends it later
    if "COMET_API_KEY" not in os.environ:
        return CometLogger(project=PROJECT, online=False, offline_directory=str(folder / "comet"))
    return CometLogger(project=PROJECT, online=True)


TRACKERS = {
    "wandb": Tracker("wandb", "wandb", _wandb),
    "mlflow": Tracker("mlflow", "mlflow-skinny", _mlflow),
    "comet": Tracker("comet_ml", "comet-ml", _comet),
}


def check_name(value: Any) -> None:
    """Raises ValueError where `trainer.logger` names no tracker."""
    if not isinstance(value, bool) and value not in TRACKERS:
        miss = unknown("tracker", str(value), TRACKERS)
        raise ValueError(f"trainer.logger={value!r} must be true, false or a tracker: {miss}")


def check_installed(options: Mapping[str, Any]) -> None:
    """Raises ValueError where the tracker that `trainer.logger` names is not installed, before any work."""
    tracker = TRACKERS.get(str(options.get("logger")))
    if tracker and find_spec(tracker.module) is None:
        raise ValueError(f"trainer.logger={options['logger']} is not installed: pip install {tracker.package}")


def loggers_of(value: Any, folder: Path, title: str, about: Mapping[str, Any]) -> Any:
    """The loggers of a training; False where there is to be none.

    Args:
        value: `trainer.logger`: true, false, or a tracker's name.
        folder: of the training.
        title: what a tracker calls it.
        about: the recipe and digests, which a tracker shows as the run's config.
    """
    if value is False:
        return False
    from lightning.pytorch.loggers import CSVLogger

    from duo.training.tensorboard import TensorBoard

    # flushed at once: a killed run keeps its curve
    found: list[Any] = [CSVLogger(folder, "logs", flush_logs_every_n_steps=1), TensorBoard(folder / "tensorboard")]
    if value in TRACKERS:
        tracker = TRACKERS[value].make(folder, f"{title} {folder.name}")
        tracker.log_hyperparams(dict(about))
        found.append(tracker)
    return found
