"""Training a stage with Lightning.

lightning_module  DuoModule: one training step on the router's loss
trainer           fit: checkpoints, resuming, logs; the device
small             small FFNs out of big ones, layer by layer
callbacks         progress, rate, and stopping where nothing is lost
strategies        fsdp2: a backbone that is trained in shards
loggers           where the curves go, trackers too
tensorboard       curves for TensorBoard
config            steps and rates of the stages
options           arguments of lightning.Trainer that a recipe may give, and duo's own
"""

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
