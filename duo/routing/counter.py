"""Counts what torch's operators do in one thread, one by one, as they are called."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

from duo.routing.operators import elements, rule_of
from duo.routing.products import Call

if sys.platform == "linux":
    import resource


class Work(NamedTuple):
    """What operators did."""

    operators: int = 0
    """Operators called, free ones too, and one for each time that counting began."""
    products: float = 0.0
    """FLOPs of products."""
    elements: float = 0.0
    """FLOPs of everything else."""
    processor: float = 0.0
    """Seconds that this thread worked, with the Python around the operators."""
    waited: float = 0.0
    """Seconds that this thread waited of its own accord: not for a busy processor, as far as the system tells."""

    def plus(self, other: Work) -> Work:
        """Both together."""
        return Work(
            self.operators + other.operators, self.products + other.products,
            self.elements + other.elements, self.processor + other.processor, self.waited + other.waited,
        )  # fmt: skip


class Instant(NamedTuple):
    """A moment of this thread, on all its clocks."""

    wall: float
    processor: float
    switches: int

    @classmethod
    def now(cls) -> Instant:
        """This moment."""
        # not the time of all threads of the process: torch's own spin while they wait for one another
        return cls(time.perf_counter(), time.thread_time(), _switches())

    def past(self) -> Work:
        """The time since then, and all of it that did not go by working as waited."""
        now = Instant.now()
        processor = now.processor - self.processor
        return Work(processor=processor, waited=now.wall - self.wall - processor)

    def gave_up(self) -> bool:
        """Whether this thread has waited since then of its own accord."""
        return _switches() > self.switches


_unknown = itertools.count(1)


def _switches() -> int:
    """How often this thread has given up its processor of its own accord; where no system tells, one more each time."""
    if sys.platform != "linux":
        return next(_unknown)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


class Counter(TorchDispatchMode):
    """Counts the operators called inside, but for those of other threads and those that are `interrupted`.

    What leaves torch is not seen: numpy, other threads, C. It shows in the time alone.

    Raises:
        NotImplementedError: an operator that takes functions (`torch.cond`, `flex_attention`), whose work is not seen.
    """

    supports_higher_order_operators = True  # to refuse them in a sentence

    def __init__(self) -> None:
        super().__init__()
        self.operators, self.products, self.elements, self.processor, self.waited = 0, 0.0, 0.0, 0.0, 0.0

    @property
    def work(self) -> Work:
        """What has been counted."""
        return Work(self.operators, self.products, self.elements, self.processor, self.waited)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls the operator and counts it."""
        if isinstance(func, torch._ops.HigherOrderOperator):
            raise NotImplementedError(f"what {func} costs cannot be counted: write it with torch's plain operators")
        kwargs, rule = kwargs or {}, rule_of(func)
        self.operators += 1
        if rule.inside is None:
            out = func(*args, **kwargs)
        else:
            with self:
                out = func._op_dk(rule.inside, *args, **kwargs)
        if rule.price is not None:
            call = Call(func, args, kwargs, out)
            flops = rule.price(call)
            if rule.is_product and flops:
                self.products += flops
            else:  # a product over nothing still reads and writes what is around it
                self.elements += elements(call) if rule.is_product else flops
        return out

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts inside; the clock also runs while it is interrupted."""
        self.operators += 1  # what it takes to begin and end
        wait_for_device()
        start = Instant.now()
        try:
            _here.counter = self
            self._go_on()
            yield
        except Exception:
            self._stop()
            raise
        except BaseException:  # a signal strikes anywhere, in the middle of beginning and ending too
            with suppress(Exception):
                self._stop()
            raise
        else:
            self._stop()
        finally:
            _here.counter = None
            wait_for_device()
            past = start.past()
            self.processor += past.processor
            self.waited += past.waited if start.gave_up() else 0.0

    def _go_on(self) -> None:
        self.__enter__()  # by hand, for what interrupts leaves it in the middle

    def _stop(self) -> None:
        if _get_current_dispatch_mode() is not self:
            raise RuntimeError(
                "a torch mode was entered or left while costs were counted: leave what you enter, inside"
            )
        self.__exit__(None, None, None)


class _Here(threading.local):
    counter: Counter | None = None


_here = _Here()


@contextmanager
def interrupted() -> Iterator[bool]:
    """No operator inside is counted in this thread; yields whether one would have been."""
    counter, _here.counter = _here.counter, None
    if counter is not None:
        counter._stop()
    try:
        yield counter is not None
    finally:
        if counter is not None:
            counter._go_on()
        _here.counter = counter


def wait_for_device() -> None:
    """Waits until all that was asked of a GPU is done, so that clocks and counts are of the same."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
