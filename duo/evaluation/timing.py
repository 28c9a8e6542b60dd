"""Wall time: how long a routed pass takes beside all big, and whether what was counted explains what deciding takes.

Costs are counted as torch's operators are called. What leaves torch (numpy, threads, C, another process) is not
counted, but takes time. So deciding is timed as well, and its time compared with what its operators would take here, by
a generous measure: SLACK times what such operators were measured to take in this process.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from duo.backbone import BIG, Backbone, Run
from duo.routing.compose import replay
from duo.routing.counter import Counter, Work, wait_for_device

PAIRS = 3  # of a routed and an all-big pass
SLACK = 5  # times the processor time that was measured may be taken
FLOOR = 1e-3  # seconds a batch that need no explanation: what Python does around operators
SHARE = 0.05  # of what the passes take, all big: unexplained time beyond it marks a row
TRIMMED = 0.1  # of the batches, those with most unexplained time, are left out: a machine has its moments
HIDDEN = 2.0  # all-big passes' processor time that a routed pass may take: what is beyond works beside it


class Clock(NamedTuple):
    """What something took."""

    wall: float
    """Seconds."""
    processor: float
    """Seconds of all threads of this process together."""


def timed(call: Callable[[], object]) -> Clock:
    """Calls it once."""
    wait_for_device()
    wall, processor = time.perf_counter(), time.process_time()
    call()
    wait_for_device()
    return Clock(time.perf_counter() - wall, time.process_time() - processor)


class Pace(NamedTuple):
    """Passes over one batch, with nothing counted."""

    routed: Clock
    """Of deciding and of the routed pass; 0 where it was not measured."""
    all_big: Clock
    """Of the all-big pass."""
    head: float
    """Wall seconds of the head, which is part of both, where a pass leaves it undone; else 0."""


def pace(backbone: Backbone, tokens_BT: Tensor, routed: Callable[[], Run] | None) -> Pace:
    """PAIRS of alternating passes, routed and all big (or all big alone): medians, but of work in deciding the least.

    What others do on the machine, and torch's threads while they wait for one another, adds to that at times.
    """
    gate = replay(torch.full((*tokens_BT.shape, len(backbone.routed)), BIG, device=tokens_BT.device))
    ours, big, head = [], [], timed(backbone(tokens_BT, gate).head.walk)
    for _ in range(PAIRS):
        ours.append(timed(lambda: routed().head.walk()) if routed else Clock(0.0, 0.0))
        big.append(timed(lambda: backbone(tokens_BT, gate).head.walk()))
    least = Clock(statistics.median(clock.wall for clock in ours), min(clock.processor for clock in ours))
    return Pace(least, Clock(*(statistics.median(part) for part in zip(*big, strict=True))), head.wall)


class Speed(NamedTuple):
    """Processor seconds that counted operators take here, counting included."""

    operator: float
    product: float
    """For each FLOP of a product."""
    element: float
    """For each FLOP of another operator."""


@functools.lru_cache(maxsize=4)
def speed(device: torch.device) -> Speed:
    """Measured once a process: small operators, thin products, slow elements (remainders, sorts, exponentials)."""
    # small enough for one thread: several spin while they wait for one another
    few, x_ND = torch.ones(8, device=device), torch.rand(1000, 32, device=device)
    whole_ND, weight_DM = (x_ND * 1e6).long(), torch.rand(32, 2, device=device)
    slow: Sequence[Callable[[], Tensor]] = (
        lambda: whole_ND % 1001, lambda: x_ND.argsort(dim=-1, stable=True), lambda: F.gelu(x_ND), lambda: x_ND.exp(),
    )  # fmt: skip
    operator, product = _best(lambda: few + 1, times=50), _best(lambda: x_ND @ weight_DM)
    return Speed(
        operator.processor / operator.operators,
        product.processor / product.products,
        max(work.processor / work.elements for work in map(_best, slow)),
    )


def _best(call: Callable[[], object], times: int = 1) -> Work:
    """The quickest of a few counted rounds."""
    found = []
    for _ in range(10):
        counter = Counter()
        with counter.running():
            for _ in range(times):
                call()
        found.append(counter.work)
    return min(found, key=lambda work: work.processor)


def explained(work: Work, speed: Speed) -> float:
    """Processor seconds that operators may take, by a generous measure."""
    measured = work.operators * speed.operator + work.products * speed.product + work.elements * speed.element
    return FLOOR + SLACK * measured


def unexplained(work: Work, speed: Speed) -> tuple[float, float]:
    """Seconds of deciding on a batch that its FLOPs cannot explain: worked, and waited (for a thread, a process)."""
    may = explained(work, speed)
    return max(work.processor - may, 0.0), max(work.waited - may, 0.0)


def hidden(found: Pace, work: Work, speed: Speed) -> float:
    """Seconds that threads work beside the pass: beyond what is explained and what HIDDEN all-big passes take."""
    return max(found.routed.processor - explained(work, speed) - HIDDEN * found.all_big.processor, 0.0)


def is_unexplained(worked: Sequence[float], waited: Sequence[float], hidden: float) -> bool:
    """Whether a router is marked: what nobody can explain takes more than SHARE of its passes.

    Args:
        worked: in each batch, as shares of what its passes take if all big; the few highest are left out.
        waited: the same; half of the batches must have waited.
        hidden: of one batch.

    >>> is_unexplained([0.0] * 9 + [3.0], [0.0] * 10, 0.0), is_unexplained([0.1] * 10, [0.0] * 10, 0.0)
    (False, True)
    """
    kept = sorted(worked)[: len(worked) - math.ceil(TRIMMED * len(worked)) or 1]
    return statistics.mean(kept) + statistics.median_low(waited) + hidden > SHARE
