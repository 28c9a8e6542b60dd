"""The LightningDataModule."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import torch

from duo.data.batch import Batch, Batches, sequence_ids
from duo.data.config import DataConfig
from duo.data.excerpts import spread_rows, subset_rows
from duo.data.prepare import prepare
from duo.data.token_text import token_bytes
from duo.data.tokenizer import tokenizer_digest
from duo.data.tokens import ROWS, read


class Stream:
    """Training batches of one process: step after step through ever new shufflings, resumable at any batch.

    Which sequences a step trains on depends on the seed and the step alone, however many processes share it.
    """

    def __init__(
        self,
        batch: Callable[[np.ndarray], Batch],
        rows: int,
        seed: tuple[int, ...],
        length: int,
        total: int,
        share: slice,
        first: int = 0,
    ) -> None:
        self._batch, self._rows, self._first = batch, rows, first
        self._length, self._given = length, 0
        self._total, self._share = total, share
        # of seed and epoch, since checkpoints keep no generator; 2: a batch may reach into the next epoch
        self._shuffled = functools.lru_cache(2)(lambda epoch: np.random.default_rng((*seed, epoch)).permutation(rows))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        """The batches left of this round; a new iterator behind the last one goes on with the next."""
        # the end of the round, not so many batches on: after a resume a part of the round is done
        end = (self._given // self._length + 1) * self._length
        while self._given < end:
            self._given += 1  # before it is given: a checkpoint is written while it is in use
            yield self._batch(self.rows(self._given - 1))

    def rows(self, index: int) -> np.ndarray:
        """Rows of this process in batch `index`: its share of `total` rows of the stream."""
        index += self._first
        place = np.arange(index * self._total, (index + 1) * self._total)[self._share]
        return np.array([self._shuffled(int(at) // self._rows)[at % self._rows] for at in place])

    def state_dict(self) -> dict[str, int]:
        """How many batches were given; Lightning keeps it in its checkpoints."""
        return {"given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on behind that many batches."""
        self._given = state["given"]


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
        return Batches(np.arange(self._splits[split].num_rows), self.config.batch_size, self._batch_of(split))

    def subset(self, name: str, whole: bool = False) -> Batches:
        """The part of a hold-out that searches are scored on: first tokens (or all) of sequences of many documents."""
        split = f"holdouts.{name}"
        rows = subset_rows(self.documents(split), self.config.subset_sequences)
        return Batches(
            rows, self.config.batch_size, self._batch_of(split, None if whole else self.config.subset_tokens)
        )

    def calibration_set(self, name: str) -> Batches:
        """A calibration set's batches, every sequence once; the first ones are of as many documents as possible."""
        split = f"calibration.{name}"
        return Batches(spread_rows(self.documents(split)), self.config.batch_size, self._batch_of(split))

    def train_dataloader(self) -> Stream:
        """As many batches as the trainer has steps (without a limit: one pass over the data)."""
        self.setup()
        trainer, rows = self.trainer, self._splits["train"].num_rows
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        accumulate = trainer.accumulate_grad_batches if trainer else 1
        total, uneven = divmod(self.batch_size, accumulate)
        if uneven or total % world:
            raise ValueError(
                f"batch_size={self.batch_size} sequences per optimizer step do not divide over "
                f"{world} processes and trainer.accumulate_grad_batches={accumulate}"
            )
        steps = trainer.max_steps if trainer else -1
        # all steps in one epoch, so that no end of an epoch comes between them
        length = steps * accumulate if steps >= 0 else max(rows // total, 1)
        return Stream(
            self._batch_of("train"), rows, seed=self._order, length=length, total=total,
            share=slice(rank, None, world), first=self._done * accumulate,
        )  # fmt: skip

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
