"""What every router is, whether one has anything to learn, and the pass that is made under one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from duo.backbone import Backbone, Counts, Gate, Run
from duo.routing.meter import meter_of
from duo.routing.trial import Trial


@dataclass(frozen=True)
class Spec:
    """What a router is told when it is built."""

    layers: int
    """Layers of the backbone that are routed; of a `Budget` that pins some, the others are counted here."""
    width: int
    """Width of the stream that a gate reads."""
    budget: Counts
    """What a token may spend: (skip, small, big) modules; a `Budget` that is given here is resolved."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "budget", self.budget.of(self.layers))  # no router ever meets a share
        object.__setattr__(self, "layers", round(sum(self.budget)))


class Router(nn.Module, ABC):
    """Decides which module every token takes at every layer.

    A plugin subclasses it, implements `route`, and may add keyword options with defaults to `__init__`. Only `__init__`
    may draw from torch's global generator; routing draws from `trial.uniform`.
    """

    search_method: str | None = None
    """How its routes were searched for, if not among all that there are (`local`, `beam`): said beside its scores."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec

    @abstractmethod
    def route(self, trial: Trial) -> Gate:
        """A gate for the trial's tokens; in eval mode its answers are exactly one-hot."""

    def loss(self, trial: Trial) -> Tensor:
        """The loss of one training step, a scalar; by default the language-model loss of the router's own route."""
        return trial.loss(trial.run(self.route(trial))).mean()

    def calibrate(self, trials: Sequence[Trial]) -> None:
        """Called once, in eval mode, before evaluation, with trials it may walk repeatedly; by default does nothing.

        Every process sees all trials in the same order. What it finds belongs into buffers, so that it is saved.
        """


def learns(*modules: Router | Backbone) -> bool:
    """Whether anything requires a gradient."""
    return any(parameter.requires_grad for module in modules for parameter in module.parameters())


def route_and_run(backbone: Backbone, router: Router, trial: Trial, context: Run | None = None, start: int = 0) -> Run:
    """One pass over the trial's tokens from `start` on under the router's route: what every score is of.

    The router answers with a gate and the gate is run here, on a pass that the router does not see; what deciding cost
    stands on the trial's meter afterwards.
    """
    meter, tokens_BT = meter_of(trial.meter), trial.tokens_BT  # before the router has the trial
    with meter.charging_threads():
        with meter.counting():
            gate = router.route(trial)
        # not trial.run, which would charge the pass itself to deciding
        return backbone(tokens_BT[:, start:], meter.counted(gate), context, start)
