"""Text and code as packed sequences: `DataConfig`, and the LightningDataModule `TextData` (imported when asked for)."""

from typing import Any

from duo.data.batch import Batch, Batches
from duo.data.config import DataConfig

__all__ = ["Batch", "Batches", "DataConfig", "TextData"]


def __getattr__(name: str) -> Any:
    if name == "TextData":  # not imported above: Lightning takes seconds to import
        from duo.data.datamodule import TextData

        return TextData
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
