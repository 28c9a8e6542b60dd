"""Keys and values: of the past and of a step's own tokens together, in memory that may be allocated once."""

from __future__ import annotations

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""Keys and values, (B, H, T, K) each; H counts key/value heads."""


class Room(tuple[Tensor, Tensor]):
    """A layer's keys and values so far, as views into memory that has room for those to come.

    It is a pair like any other; only `extend` knows that what comes next need not copy what is there.
    """

    _memory: _Memory

    @classmethod
    def empty(cls, batch: int, heads: int, positions: int, width: int, like: Tensor) -> Room:
        """Room for so many positions of so many sequences, of the type and on the device of `like`."""
        return cls._of(_Memory(like.new_empty(2, batch, heads, positions, width)), 0)

    @classmethod
    def _of(cls, memory: _Memory, held: int) -> Room:
        room = tuple.__new__(cls, memory.parts[:, :, :, :held].unbind(0))
        room._memory = memory
        return room

    def extended(self, own: Pair) -> Room:
        """These and, behind them, a step's own; what was there before is not touched."""
        held, memory = self[0].shape[2], self._memory
        end = held + own[0].shape[2]
        if memory.used != held or end > memory.parts.shape[3]:  # another pass has gone on from here, or it is full
            memory = memory.moved(held, held + end)  # twice as much, so that few steps move it
        memory.used = end
        for part, new in zip(memory.parts, own, strict=True):
            part[:, :, held:end] = new
        return self._of(memory, end)


class _Memory:
    """What the rooms of one layer share."""

    def __init__(self, parts: Tensor) -> None:
        self.parts = parts  # keys, then values
        self.used = 0  # positions

    def moved(self, held: int, positions: int) -> _Memory:
        """The first positions once more, with room for so many in all."""
        batch, heads, _, width = self.parts.shape[1:]
        parts = self.parts.new_empty(2, batch, heads, positions, width)
        parts[:, :, :, :held] = self.parts[:, :, :, :held]
        return _Memory(parts)


def extend(past: Pair, own: Pair) -> Pair:
    """The past's keys and values, then a step's own: a room's in its memory, or in larger one, others copied."""
    if isinstance(past, Room) and not torch.is_grad_enabled():  # no gradient goes through what is written over
        return past.extended(own)
    key, value = (torch.cat(pair, dim=2) for pair in zip(past, own, strict=True))
    return key, value


def keep(seen: Pair, start: int, held: int) -> Pair:
    """What the next step may attend to, of what this one attended to: `held` of the past, then its own from `start` on.

    Where a step stands behind the whole past (or has none), that is all of it, as it is.
    """
    if start == held:
        return seen
    key, value = (torch.cat((part[:, :, :start], part[:, :, held:]), dim=2) for part in seen)
    return key, value
