"""The LightningDataModule."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import torch

from duo.data.batch import Batch, Batches, sequence_ids
from duo.data.config import DataConfig
from duo.data.excerpts import spread_rows, subset_rows
from duo.data.plan import known_by, plan_stream, prepare_shards
from duo.data.prepare import prepare
from duo.data.stream import Rounds, Share, Shuffled, Stream, Streamed
from duo.data.token_text import token_bytes
from duo.data.tokenizer import tokenizer_digest
from duo.data.tokens import ROWS, read


class TextData(L.LightningDataModule):
    """Text and code, packed into sequences.

    Args:
        config: documents, sequence length, batch size.
        vocabulary: tokens of the tokenizer that is trained on the training documents, or room for those of another.
        cache: folder of prepared data.
        folder: tokens that are prepared already, for which no document is read.
    """

    def __init__(self, config: DataConfig, vocabulary: int, cache: Path | str, folder: Path | None = None) -> None:
        super().__init__()
        self.config, self.batch_size = config, config.batch_size
        self.vocabulary, self.cache = vocabulary, Path(cache)
        self._order: tuple[int, ...] = (config.seed,)
        self._done = 0  # optimizer steps whose data another training has had
        self._folder = folder
        if folder and config.stream:
            raise ValueError("data.stream=true reads documents, but these tokens come prepared: leave it out")

    def prepare_data(self) -> None:
        """Prepares the tokens, or finds them in the cache."""
        self._folder = self._folder or prepare(self.config, self.vocabulary, self.cache)

    def setup(self, stage: str = "fit") -> None:
        """Opens the prepared tokens."""
        if not hasattr(self, "_splits"):
            self.prepare_data()  # Lightning calls it on one process alone, and without a trainer nobody does
            assert self._folder is not None
            self.tokenizer, splits, self.digests = read(self._folder)
            self._splits = {name: split.with_format("numpy") for name, split in splits.items()}
            self._bytes_V, self._tokenizer_digest = token_bytes(self.tokenizer), tokenizer_digest(self.tokenizer)
            if self.config.stream:
                self._plan = plan_stream(self.config, self.tokenizer, self._folder)
                self.digests = known_by(self._plan, self.digests)
                if self.config.prepare:
                    self._plan = prepare_shards(self._plan, self.vocabulary, self.cache, self.config.workers)

    def shuffled(self, seed: int, batch_size: int) -> TextData:
        """The same data in another order of training, with another number of sequences per optimizer step."""
        other = copy.copy(self)
        # by the router's seed too: seeds should differ even where first weights are alike
        other.batch_size, other._order = batch_size, (self.config.seed, seed)
        return other

    def behind(self, steps: int) -> TextData:
        """The same data in the same order, but training begins with what comes behind so many optimizer steps."""
        other = copy.copy(self)
        other._done = self._done + steps
        return other

    def batched(self, batch_size: int) -> TextData:
        """The same data with another number of sequences per batch, in training and in evaluation."""
        other = copy.copy(self)
        other.config, other.batch_size = replace(self.config, batch_size=batch_size), batch_size
        return other

    def packed(self) -> dict[str, np.ndarray]:
        """The sequences of every split, (N, T+1)."""
        self.setup()
        return {name: np.stack(split[:]["tokens"]) for name, split in self._splits.items()}

    def documents(self, split: str) -> np.ndarray:
        """document_N: the number of the document that each sequence of a split lies in; -1 in training."""
        self.setup()
        return np.asarray(self._splits[split]["document"][:])

    def count_tokens(self, split: str) -> np.ndarray:
        """count_V: how often each token of the vocabulary stands in a split."""
        self.setup()
        count_V = np.zeros(len(self._bytes_V), dtype=np.int64)
        for rows in self._splits[split].iter(batch_size=ROWS):
            count_V += np.bincount(np.asarray(rows["tokens"]).ravel(), minlength=len(count_V))
        return count_V

    @property
    def holdouts(self) -> list[str]:
        """Names of the hold-outs."""
        return self._names("holdouts.")

    @property
    def calibration(self) -> list[str]:
        """Names of the calibration sets."""
        return self._names("calibration.")

    @property
    def foreign(self) -> list[str]:
        """Hold-outs without a calibration set of their name."""
        return [name for name in self.holdouts if name not in self.calibration]

    def holdout(self, name: str) -> Batches:
        """A hold-out's batches, every sequence once, document by document."""
        self.setup()
        split = f"holdouts.{name}"
        return Batches(np.arange(self._splits[split].num_rows), self.config.evaluated_at_once, self._batch_of(split))

    def subset(self, name: str, whole: bool = False) -> Batches:
        """The part of a hold-out that searches are scored on: first tokens (or all) of sequences of many documents."""
        split = f"holdouts.{name}"
        rows = subset_rows(self.documents(split), self.config.subset_sequences)
        return Batches(
            rows, self.config.evaluated_at_once, self._batch_of(split, None if whole else self.config.subset_tokens)
        )

    def calibration_set(self, name: str) -> Batches:
        """A calibration set's batches, every sequence once; the first ones are of as many documents as possible."""
        split = f"calibration.{name}"
        rows = spread_rows(self.documents(split))
        return Batches(rows, self.config.evaluated_at_once, self._batch_of(split))

    def train_dataloader(self) -> Stream:
        """As many batches as the trainer has steps (without a limit: one pass over the data; of a stream, no end)."""
        self.setup()
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        accumulate = trainer.accumulate_grad_batches if trainer else 1
        total, uneven = divmod(self.batch_size, accumulate)
        if uneven or total % world:
            raise ValueError(
                f"batch_size={self.batch_size} sequences per optimizer step do not divide over "
                f"{world} processes and trainer.accumulate_grad_batches={accumulate}"
            )
        # all steps in one epoch, so that no end of an epoch comes between them
        length = trainer.max_steps * accumulate if trainer and trainer.max_steps >= 0 else self._round(total)
        rounds = Rounds(length, total, Share(rank, world), first=self._done * accumulate)
        if self.config.stream:
            plan = replace(self._plan, seed=self._order)
            return Streamed(self._streamed, plan, self.config.workers, rounds)
        return Shuffled(self._batch_of("train"), self._splits["train"].num_rows, self._order, rounds)

    def _round(self, total: int) -> int:
        """Batches of one pass over the data; of a stream, which has no end, as many as can be counted."""
        return sys.maxsize if self.config.stream else max(self._splits["train"].num_rows // total, 1)

    def _streamed(self, place_N: np.ndarray, tokens_NT: np.ndarray) -> Batch:
        """The batch of a stream's sequences by their numbers in it."""
        return Batch(
            tokens_BT=torch.from_numpy(tokens_NT[:, :-1]),
            labels_BT=torch.from_numpy(tokens_NT[:, 1:]),
            sequence_B=torch.from_numpy(sequence_ids("train", place_N)),
            document_B=torch.full((len(place_N),), -1),
            bytes_B=torch.from_numpy(self._bytes_V[tokens_NT[:, 1:]].sum(1, dtype=np.int64)),  # nobody scores them
            domain="train",
            tokenizer=self._tokenizer_digest,
        )

    def _names(self, kind: str) -> list[str]:
        self.setup()
        return [name.removeprefix(kind) for name in self._splits if name.startswith(kind)]

    def _batch_of(self, split: str, length: int | None = None) -> Callable[[np.ndarray], Batch]:
        """What turns rows of a split into a batch."""
        domain = split.rpartition(".")[2]

        def batch(rows: np.ndarray) -> Batch:
            held = self._splits[split][rows]
            tokens = torch.from_numpy(np.stack(held["tokens"])).long()
            tokens = tokens if length is None else tokens[:, : length + 1]
            # of a tokenizer that changes texts, the bytes of each place are known
            byte_BT = np.stack(held["bytes"])[:, : tokens.shape[1]] if "bytes" in held else self._bytes_V[tokens]
            return Batch(
                tokens_BT=tokens[:, :-1],
                labels_BT=tokens[:, 1:],
                sequence_B=torch.from_numpy(sequence_ids(split, rows)),
                document_B=torch.from_numpy(np.asarray(held["document"])).long(),
                bytes_B=torch.from_numpy(byte_BT[:, 1:].sum(1, dtype=np.int64)),
                domain=domain,
                tokenizer=self._tokenizer_digest,
            )

        return batch
