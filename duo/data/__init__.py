"""Text and code as packed sequences.

config       where the documents come from, and the sizes
sources      which files hold the documents
readers      the texts of a txt, jsonl or parquet
hub          the shards of a data set, streamed
shelf        documents on disk, each once
documents    which text trains, calibrates, is held out
excerpts     sequences of held-out documents, a few of each
tokenizer    a byte-pair tokenizer trained on the training documents, or a model's own
token_text   the bytes of text that tokens stand for
tokens       packed sequences: made, written, read, digested
prepare      from documents to tokens, once
units        what a stream is dealt by: shards, pieces of them
lanes        a stream's order: its n-th sequence
shards       a stream's tokens, memory-mapped
plan         from settings to a stream
workers      processes that make items for another
stream       training batches, resumable at any of them
windows      one text of any length, in windows that overlap
batch        what training and evaluation are fed
datamodule   TextData: the LightningDataModule
"""

from typing import Any

from duo.data.batch import Batch, Batches
from duo.data.config import DataConfig

__all__ = ["Batch", "Batches", "DataConfig", "TextData"]


def __getattr__(name: str) -> Any:
    if name == "TextData":  # not imported above: Lightning takes seconds to import
        from duo.data.datamodule import TextData

        return TextData
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
