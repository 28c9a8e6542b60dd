"""What deciding costs, counted where it happens rather than declared."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from duo.backbone import Backbone, BackboneConfig, Gate, Run
from duo.backbone.flops import pass_cost
from duo.backbone.watch import strangers_watched, watched, watcher
from duo.routing.counter import Counter, Instant, Work, interrupted, wait_for_device

Answer = TypeVar("Answer")


class Costs(NamedTuple):
    """What has been charged."""

    passes: float = 0.0
    """Passes through a backbone, as a share of the whole trial's tokens each."""
    layer_evaluations: int = 0
    """Layers computed, summed over tokens."""
    pass_flops: float = 0.0
    """FLOPs of passes and searches, in closed form."""
    work: Work = Work()
    """The router's own operators, counted as they are called, and the time that deciding took beside passes."""
    labels_consulted: bool = False
    """Whether the labels of the trial's tokens were read."""

    @property
    def flops(self) -> float:
        """All FLOPs."""
        return self.pass_flops + self.work.products + self.work.elements


class Meter:
    """What a router spent and looked at; filled where it happens, and held by whoever made the trial.

    The router has a `MeterView`. While a router's code runs (`counting`), every pass through a backbone is charged
    here, whoever asks for it, and every operator that is called beside passes.

    Args:
        enabled: whether costs are counted; they are not while training.
    """

    promised_loss: Tensor | None = None
    """loss_BT that a search promised for the routes it returned."""

    def __init__(self, enabled: bool = True) -> None:
        self._enabled, self._tokens, self._lost = enabled, 1, ""
        self._costs, self._seal = Costs(), hash(Costs())
        self._lock = threading.RLock()  # again: a signal may strike where it is held
        self.models: set[Backbone] = set()
        """Whose passes were charged: a deployment holds them all."""

    @property
    def enabled(self) -> bool:
        """Whether costs are counted."""
        return self._enabled

    @property
    def costs(self) -> Costs:
        """What has been charged.

        Raises:
            ValueError: somebody has written other numbers into it, or an error was swallowed that has left a pass.
        """
        if self._lost:
            raise ValueError(f"what a pass cost that was left by an error is not known: {self._lost}")
        return self._sealed()

    def _sealed(self) -> Costs:
        if hash(self._costs) != self._seal:
            raise ValueError(f"somebody has set the router's costs to {self._costs}: they are counted, not declared")
        return self._costs

    def begin(self, tokens: int) -> None:
        """Passes are shares of so many tokens from now on."""
        self._tokens = max(tokens, 1)

    def charge(self, config: BackboneConfig, layer_evaluations: int, flops: float) -> None:
        """Notes what was computed in closed form, as passes through the whole trial too."""
        if self.enabled:
            passes = layer_evaluations / (config.layers * self._tokens)
            self._add(Costs(passes, layer_evaluations, flops))

    def consult_labels(self) -> None:
        """Notes that labels were read; also where nothing is counted."""
        self._add(Costs(labels_consulted=True))

    def _add(self, more: Costs) -> None:
        with self._lock:
            costs = self._sealed()
            costs = Costs(
                costs.passes + more.passes, costs.layer_evaluations + more.layer_evaluations,
                costs.pass_flops + more.pass_flops, costs.work.plus(more.work),
                costs.labels_consulted or more.labels_consulted,
            )  # fmt: skip
            self._costs, self._seal = costs, hash(costs)  # in one line: no signal comes in between

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Charges what happens inside; where somebody is charged already, that one goes on."""
        if not self.enabled or watcher() is not None:
            yield
            return
        counter = Counter()
        try:
            with watched(self), counter.running():
                yield
        finally:
            self._add(Costs(work=counter.work))

    def counted(self, function: Callable[..., Answer]) -> Callable[..., Answer]:
        """The same function (a gate, a criterion), charged whenever it is called."""

        def metered(*args: Any) -> Answer:
            with self.counting():
                answer = function(*args)
            check_plain(answer, type(args[0]))
            return answer

        return metered if self.enabled else function

    def charge_pass(self, backbone: Backbone, start: int, gate: Gate, run: Callable[[Gate], Run]) -> Run:
        """One pass, charged in closed form, but for its gate, which is counted."""
        with self.in_closed_form():
            found = run(self.counted(gate))
            layer_evaluations, flops = pass_cost(backbone.config, found, start)
        self.models.add(backbone)
        self.charge(backbone.config, layer_evaluations, flops)
        return found

    @contextmanager
    def in_closed_form(self) -> Iterator[None]:
        """What is inside is charged by a formula: neither its operators nor its time count, but those of `counted`."""
        with watched(None), interrupted() as counting:
            wait_for_device()
            start, before = Instant.now(), self._costs.work
            try:
                yield
            except BaseException as error:
                if self.enabled:
                    self._lost = self._lost or repr(error)
                raise
            wait_for_device()
            if counting:
                past, after = start.past(), self._costs.work  # what was counted inside stays
                self._add(Costs(work=Work(
                    processor=after.processor - before.processor - past.processor,
                    waited=after.waited - before.waited - past.waited,
                )))  # fmt: skip

    @contextmanager
    def charging_threads(self) -> Iterator[None]:
        """Charges passes that threads make inside; those of this thread are charged in `counting` alone."""
        if not self.enabled or watcher() is not None:
            yield
            return
        with strangers_watched(self):
            yield


def check_plain(answer: object, like: type = Tensor) -> None:
    """Raises ValueError where a router gives a tensor of a class that may compute when it is looked at, uncounted."""
    if isinstance(answer, Tensor) and type(answer) not in (Tensor, nn.Parameter, like):
        raise ValueError(
            f"it gives a {type(answer).__name__}, whose work nobody would count: give a plain torch.Tensor "
            "(x.as_subclass(torch.Tensor))"
        )


class MeterView:
    """What a router may see of its meter: the numbers; they cannot be set."""

    __slots__ = ("__weakref__",)

    def __init__(self, meter: Meter) -> None:
        _meters[self] = meter

    @property
    def passes(self) -> float:
        """Passes through a backbone, as a share of the whole trial's tokens each."""
        return meter_of(self).costs.passes

    @property
    def layer_evaluations(self) -> int:
        """Layers computed, summed over tokens."""
        return meter_of(self).costs.layer_evaluations

    @property
    def flops(self) -> float:
        """FLOPs of those passes (closed form) and of the router's own operators (counted where they are called)."""
        return meter_of(self).costs.flops

    @property
    def labels_consulted(self) -> bool:
        """Whether the labels of the trial's tokens were read."""
        return meter_of(self).costs.labels_consulted

    @property
    def promised_loss(self) -> Tensor | None:
        """A copy of loss_BT that a search promised for the routes it returned."""
        promised_BT = meter_of(self).promised_loss
        return None if promised_BT is None else promised_BT.clone()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"trial.meter.{name} cannot be set: a router's costs are counted, not declared")

    def __copy__(self) -> MeterView:
        return self

    def __deepcopy__(self, memo: object) -> MeterView:
        return self


_meters: WeakKeyDictionary[MeterView, Meter] = WeakKeyDictionary()
"""Which meter a view shows: here, so that who holds a view does not hold the meter."""


def meter_of(view: MeterView) -> Meter:
    """The meter that a view shows."""
    return _meters[view]


def charged(view: MeterView) -> Meter:
    """Who is charged for what a trial does: whoever is for the code that asks, else the trial's own meter."""
    watching = watcher()
    return watching if isinstance(watching, Meter) else meter_of(view)


def note_labels(view: MeterView) -> None:
    """Notes that a trial's labels were read, on its meter and for whoever asked."""
    for meter in {charged(view), meter_of(view)}:
        meter.consult_labels()
