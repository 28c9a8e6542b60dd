"""The output head: logits whole where they are small, else part by part, so that all of them are never held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

WHOLE_BYTES = 32 << 20
"""Of logits that a pass builds at once; of more it leaves the stream before the head."""
LEAST_ROWS = 128
"""Tokens whose logits are made at once at least: a matrix product of fewer costs more for each."""


class Head(NamedTuple):
    """What a pass ends with: the stream before the output head, and the head's weights; or the logits, if small."""

    x_BSD: Tensor
    """The last layer's stream, normed."""
    weight_VD: Tensor
    """The output head."""
    made_BSV: Tensor | None = None
    """Logits, where they are made already."""

    @classmethod
    def of(cls, x_BSD: Tensor, weight_VD: Tensor, whole: bool) -> Head:
        """The head of a stream; its logits are made if they are small, or must be `whole`."""
        head = cls(x_BSD, weight_VD)
        rows = x_BSD.shape[0] * x_BSD.shape[1]
        return head.finish() if whole or rows <= head.rows_at_once else head

    def finish(self) -> Head:
        """The same with its logits made."""
        return self._replace(made_BSV=self.logits())

    def logits(self) -> Tensor:
        """All logits, (B, S, V); where they are not made they are made at every call."""
        return F.linear(self.x_BSD, self.weight_VD) if self.made_BSV is None else self.made_BSV

    def select(self, *index: Any) -> Head:
        """The head of some sequences and positions."""
        made_BSV = None if self.made_BSV is None else self.made_BSV[index]
        return Head(self.x_BSD[index], self.weight_VD, made_BSV)

    @property
    def rows_at_once(self) -> int:
        """Tokens whose logits are made at once."""
        return rows_within(WHOLE_BYTES, self.weight_VD)

    def walk(self) -> None:
        """Makes logits that are not made yet, a part at a time, and drops them: to time what a pass leaves undone."""
        if self.made_BSV is None:
            for _, x_RD in self.parts():
                F.linear(x_RD, self.weight_VD)

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """The streams of a few tokens at a time, x_RD, and where these stand in (B * S)."""
        x_ND, size = self.x_BSD.flatten(0, 1), self.rows_at_once
        for start in range(0, len(x_ND), size):
            yield slice(start, start + size), x_ND[start : start + size]


def rows_within(most: int, weight_VD: Tensor) -> int:
    """Tokens whose logits take at most so many bytes, but not fewer than LEAST_ROWS.

    >>> import torch
    >>> rows_within(32 << 20, torch.empty(2048, 1)), rows_within(2 << 20, torch.empty(49152, 1))
    (4096, 128)
    """
    return max(most // (len(weight_VD) * weight_VD.element_size()), LEAST_ROWS)
