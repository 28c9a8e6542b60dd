"""Training batches of one process, step after step, resumable at any batch: of prepared tokens, or of a stream."""

from __future__ import annotations

import functools
import logging
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from duo.data.batch import Batch
from duo.data.lanes import Lane, Plan, Reader
from duo.data.workers import in_workers
from duo.storage.processes import is_distributed

log = logging.getLogger(__name__)
States = dict[int, dict[str, Any]]
"""Of lanes, by number: where their present blocks begin."""


class Share(NamedTuple):
    """The sequences of every batch that are one process's: each `world`-th, from the `rank`-th on."""

    rank: int = 0
    world: int = 1

    def of(self, index: int, total: int) -> np.ndarray:
        """Their numbers in batch `index` of `total` sequences."""
        return np.arange(index * total, (index + 1) * total)[self.rank :: self.world]

    def lanes(self, lanes: int) -> range:
        """The lanes that they come from, where all batches divide over the processes."""
        step = math.gcd(lanes, self.world)
        return range(self.rank % step, lanes, step)


class Rounds(NamedTuple):
    """How many batches there are, and whose they are."""

    length: int
    """Batches of a round."""
    total: int
    """Sequences of a batch, over all processes."""
    share: Share = Share()
    """Which of them are this process's."""
    first: int = 0
    """Batches that another training has had."""


class Stream:
    """As many batches as a training takes, in rounds."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds, self._given = rounds, 0

    def __len__(self) -> int:
        return self._rounds.length

    def __iter__(self) -> Iterator[Batch]:
        """The batches left of this round; a new iterator behind the last one goes on with the next."""
        # the end of the round, not so many batches on: after a resume a part of the round is done
        end = (self._given // self._rounds.length + 1) * self._rounds.length
        while self._given < end:
            self._given += 1  # before it is given: a checkpoint is written while it is in use
            yield self._make(self._rounds.share.of(self._index, self._rounds.total))

    @property
    def _index(self) -> int:
        """Of the batch that was given last, among those of all trainings."""
        return self._rounds.first + self._given - 1

    def _make(self, place_N: np.ndarray) -> Batch:
        """The batch of the sequences with these numbers in the stream."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """How many batches were given; Lightning keeps it in its checkpoints."""
        return {"given": self._given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on behind that many batches."""
        self._given = state["given"]


class Shuffled(Stream):
    """Batches of rows that are all there, through ever new shufflings.

    Which rows a step trains on depends on the seed and the step alone, however many processes share it.
    """

    def __init__(self, batch: Callable[[np.ndarray], Batch], rows: int, seed: tuple[int, ...], rounds: Rounds) -> None:
        super().__init__(rounds)
        self._batch, self._rows = batch, rows
        # of seed and epoch, since checkpoints keep no generator; 2: a batch may reach into the next epoch
        self._shuffled = functools.lru_cache(2)(lambda epoch: np.random.default_rng((*seed, epoch)).permutation(rows))

    def _make(self, place_N: np.ndarray) -> Batch:
        return self._batch(np.array([self._shuffled(int(at) // self._rows)[at % self._rows] for at in place_N]))


class Streamed(Stream):
    """Batches of documents that are read as they are needed, in this process or in others beside it.

    What the n-th sequence is depends on the plan alone. A checkpoint holds where every lane is, so that any number of
    processes and workers goes on with the very next sequence, after making the present blocks again.

    Args:
        batch: makes a batch of sequences' numbers and tokens.
        plan: decides the stream.
        workers: processes beside this one.
    """

    def __init__(
        self, batch: Callable[[np.ndarray, np.ndarray], Batch], plan: Plan, workers: int, rounds: Rounds
    ) -> None:
        super().__init__(rounds)
        self._batch, self._plan, self._states = batch, plan, States()
        self._lanes = rounds.share.lanes(plan.lanes)
        self._workers = min(workers, len(self._lanes))
        if plan.lanes % rounds.share.world and not rounds.share.rank:
            log.warning(
                "data  data.lanes=%s do not divide over %s processes: the stream is the same, but each lane is read by "
                "several of them; a multiple spares that", plan.lanes, rounds.share.world,
            )  # fmt: skip
        self._dealt: Iterator[Dealt] | None = None

    def _make(self, place_N: np.ndarray) -> Batch:
        # made at the first batch: a checkpoint is loaded before
        self._dealt = self._deal() if self._dealt is None else self._dealt
        lane_N, parts = place_N % self._plan.lanes, max(self._workers, 1)
        tokens_NT = np.empty((len(place_N), self._plan.length), dtype=np.int64)
        for worker in range(parts):
            rows, states = self._next()
            tokens_NT[np.isin(lane_N, self._lanes[worker::parts])] = rows
            self._states |= states
        if self._given % self._rounds.length == 0:  # workers end with a round, whoever still holds this
            self._dealt = None
        return self._batch(place_N, tokens_NT)

    def _deal(self) -> Iterator[Dealt]:
        dealer = Dealer(self._plan, self._rounds.share, self._rounds.total, self._index, self._states)
        return in_workers(dealer, self._workers) if self._workers else iter(dealer)

    def _next(self) -> Dealt:
        assert self._dealt is not None
        try:
            dealt = next(self._dealt)
        except RuntimeError as error:  # a worker that the system ended, for want of memory say
            said = str(error).splitlines()[0]
            raise ValueError(f"a process of data.workers={self._workers} ended ({said}): start again") from error
        if isinstance(dealt, str):
            raise ValueError(dealt)
        return dealt

    def state_dict(self) -> dict[str, Any]:
        """How many batches were given, of which stream, and where its lanes are; the same on all processes."""
        parts = [self._states]
        if self._rounds.share.world > 1 and is_distributed():
            parts = [States()] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, self._states)
        told = {"stream": self._plan.digest, "total": self._rounds.total, "lanes": merge_states(parts)}
        return super().state_dict() | told

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on behind that many batches.

        Raises:
            ValueError: they are of another stream.
        """
        if state.get("stream") != self._plan.digest or state["total"] != self._rounds.total:
            raise ValueError(
                "the checkpoint is of another stream (documents, tokenizer, weights, data.lanes, data.shuffle, "
                "data.seed, data.tokens or data.batch_size differ): set them as they were, or train anew"
            )
        super().load_state_dict(state)
        self._states, self._dealt = dict(state["lanes"]), None


Dealt = tuple[np.ndarray, States]
"""Sequences of a batch, (N, T+1), and the states of lanes that began a block for them."""


class Dealer(IterableDataset[Any]):
    """One process's part of every batch from `index` on; of a worker, that of its lanes. A mistake is told as text."""

    def __init__(self, plan: Plan, share: Share, total: int, index: int, states: States) -> None:
        self._plan, self._share, self._total, self._index, self._states = plan, share, total, index, states

    def __iter__(self) -> Iterator[Dealt | str]:
        worker = get_worker_info()
        index, count = (worker.id, worker.num_workers) if worker else (0, 1)
        try:
            yield from self._deal([*self._share.lanes(self._plan.lanes)[index::count]])
        except (ValueError, OSError) as error:  # from a worker it would come with all its traces
            yield str(error)

    def _deal(self, mine: list[int]) -> Iterator[Dealt]:
        reader, lanes, states = Reader(self._plan), dict[int, Lane](), dict(self._states)
        for index in range(self._index, sys.maxsize):
            places = [int(place) for place in self._share.of(index, self._total) if place % self._plan.lanes in mine]
            rows = np.empty((len(places), self._plan.length), dtype=np.int32)
            for at, place in enumerate(places):
                number = place % self._plan.lanes
                if number not in lanes:
                    lanes[number] = Lane(reader, number, states.get(number))
                rows[at] = lanes[number].row(place // self._plan.lanes)
            # a lane that begins at its beginning has nothing to tell
            begun = {n: lane.state for n, lane in lanes.items() if lane.state != states.get(n) and lane.state["row"]}
            states |= begun
            yield rows, begun


def merge_states(parts: list[States]) -> States:
    """The states of all lanes; where several processes make a lane, that of the last block."""
    merged = States()
    for part in parts:
        merged |= {n: one for n, one in part.items() if one["row"] >= merged.get(n, one)["row"]}
    return dict(sorted(merged.items()))
