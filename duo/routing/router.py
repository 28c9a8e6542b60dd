"""What every router is, and the helpers that routers are composed of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from duo.backbone import Gate
from duo.backbone.budget import Budget
from duo.routing.trial import Trial


@dataclass(frozen=True)
class Spec:
    """What a router is told when it is built."""

    layers: int
    """Layers of the backbone."""
    width: int
    """Width of the stream that a gate reads."""
    budget: Budget
    """What a token may spend, in modules."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "budget", self.budget.of(self.layers))


class Router(nn.Module, ABC):
    """Decides which module every token takes at every layer.

    A plugin subclasses it, implements `route`, and may add keyword options with defaults to `__init__`. Only `__init__`
    may draw from torch's global generator; routing draws from `trial.uniform`.
    """

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
