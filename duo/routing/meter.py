"""What deciding costs, counted where it happens rather than declared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from duo.backbone import Gate


@dataclass
class Meter:
    """What a router spent and looked at; filled by the trial, never by the router."""

    enabled: bool = True
    """Whether costs are counted; they are not while training."""
    passes: float = 0.0
    """Passes through the backbone, as a share of the whole trial's tokens each."""
    layer_evaluations: int = 0
    """Layers computed, summed over tokens."""
    flops: float = 0.0
    """FLOPs of those passes (closed form) and of the router's own arithmetic (counted where it happens)."""
    labels_consulted: bool = False
    """Whether the labels of this trial's tokens were read."""
    promised_loss: Tensor | None = None
    """loss_BT that a search promised for the routes it returned."""

    _counter: FlopCounterMode | None = None

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Adds the matrix products inside to `flops`, but for those in `paused`."""
        if not self.enabled or self._counter is not None:  # who is counting already counts this too
            yield
            return
        self._start()
        try:
            yield
        finally:
            self._stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Counts nothing inside: what is counted in closed form, but for gates, which are `counting` on their own."""
        running = self._counter is not None
        if running:
            self._stop()
        try:
            yield
        finally:
            if running:
                self._start()

    def _start(self) -> None:
        # it sees no attention on CPU (pytorch issue 195460): whole passes are counted in closed form
        self._counter = FlopCounterMode(display=False)
        self._counter.__enter__()  # by hand, for paused leaves it in the middle of counting

    def _stop(self) -> None:
        counter, self._counter = self._counter, None
        assert counter is not None
        counter.__exit__(None, None, None)
        self.flops += counter.get_total_flops()

    def counted(self, gate: Gate) -> Gate:
        """The same gate, its arithmetic on this meter."""

        def metered(x_BSD: Tensor, layer: int) -> Tensor:
            with self.counting():
                return gate(x_BSD, layer)

        return metered
