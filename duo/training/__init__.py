"""Training: the stages' configs, the LightningModule `DuoModule`, and `fit` (both imported when asked for)."""

from typing import Any

from duo.training.config import Stage1Config, Stage3Config, TrainingConfig

__all__ = ["DuoModule", "Stage1Config", "Stage3Config", "TrainingConfig", "fit"]


def __getattr__(name: str) -> Any:
    if name == "DuoModule":  # not imported above: Lightning takes seconds to import
        from duo.training.lightning_module import DuoModule

        return DuoModule
    if name == "fit":
        from duo.training.trainer import fit

        return fit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
