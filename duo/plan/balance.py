"""One hold-out's search over many workers: which of them waits for which."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple


class Balance(NamedTuple):
    """How evenly workers are busy."""

    seconds: float
    """Until the last one is done."""
    efficiency: float
    """Work over workers times time: 1 where nobody waits."""


def balance(seconds: Sequence[float], workers: int, queue: bool = False) -> Balance:
    """What becomes of sequences that take so long each.

    >>> balance([3.0, 1.0, 1.0, 1.0], workers=2)
    Balance(seconds=4.0, efficiency=0.75)
    >>> balance([3.0, 1.0, 1.0, 1.0], workers=2, queue=True).efficiency
    1.0

    Args:
        seconds: of each sequence, in order.
        workers: processes that share them.
        queue: whether each takes the next sequence when it is done, instead of every so many-th (as `evaluate` does,
            which needs no word between them).

    Raises:
        ValueError: there is no worker, or there are more of them than sequences.
    """
    check_workers(workers, len(seconds), "of the search")
    if queue:
        free = [0.0] * workers
        for each in seconds:
            heapq.heappush(free, heapq.heappop(free) + each)
        loads = free
    else:
        loads = [sum(seconds[rank::workers]) for rank in range(workers)]
    last = max(loads)
    return Balance(last, sum(seconds) / (workers * last) if last else 1.0)


def check_workers(workers: int, sequences: int, of: str) -> None:
    """Raises ValueError where some would have no sequence."""
    if workers < 1:
        raise ValueError(f"devices={workers} must be at least 1")
    if workers > sequences:
        raise ValueError(f"devices={workers} are more than the {sequences} sequences {of}: lower devices")
