"""How much compute a token may spend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Counts(NamedTuple):
    """Modules that a token uses over all layers, in the order of `MODULES`; possibly fractional, as a mean over tokens.

    >>> str(Counts(skip=2, small=4, big=6)), str(Counts(skip=0, small=8.4, big=3.6))
    ('6 big and 2 skipped', '3.6 big and 0 skipped')
    """

    skip: float
    small: float
    big: float

    def of(self, layers: int) -> Counts:
        """Itself: it is resolved already."""
        return self

    def __str__(self) -> str:
        return f"{self.big:g} big and {self.skip:g} skipped"


@dataclass(frozen=True)
class Budget:
    """Modules a token may use over all layers: whole numbers are modules, numbers strictly between 0 and 1 are shares.

    What is neither big nor skip is small. Pinned layers are among the big ones, and nobody's to choose: what is left of
    the budget is for the other layers.

    >>> Budget(big=6).of(12)
    Counts(skip=0, small=6, big=6)
    >>> Budget(big=0.3, skip=0.2).of(12)
    Counts(skip=2.4, small=6.0, big=3.6)
    >>> Budget(big=6, pinned=[0]).of(12)
    Counts(skip=0, small=6, big=5)

    Raises:
        ValueError: a value is negative, not a number, or neither whole nor a share; a layer is pinned twice.
    """

    big: float
    """Big modules per token (a whole number), or their share of the layers (strictly between 0 and 1)."""
    skip: float = 0
    """Skipped layers per token (a whole number), or their share of the layers (strictly between 0 and 1)."""
    pinned: list[int] = field(default_factory=list)
    """Layers that always run their big FFN, among `big`: no router is asked ([0]: trained models need their first)."""

    def __str__(self) -> str:
        pinned = f", pinned={self.pinned}" if self.pinned else ""
        return f"Budget(big={self.big:g}, skip={self.skip:g}{pinned})"

    def __post_init__(self) -> None:
        if len({*self.pinned}) < len(self.pinned):
            raise ValueError(f"budget.pinned={self.pinned} names a layer twice: name each once")
        for name in ("big", "skip"):
            object.__setattr__(self, name, _whole_or_share(name, getattr(self, name)))

    def of(self, layers: int) -> Counts:
        """The budget in modules of a model with `layers` layers, without those of pinned layers.

        Raises:
            ValueError: big and skip together need more than `layers` modules; a pinned layer is not there, or those
                that are pinned leave nothing to choose, or are more than the big modules of the budget.
        """
        routed = len(routed_layers(layers, self.pinned))
        big, skip = (_tidy(value * layers) if 0 < value < 1 else value for value in (self.big, self.skip))
        if big + skip > layers:
            raise ValueError(
                f"budget big={self.big:g}, skip={self.skip:g} needs {big + skip:g} modules of a token, "
                f"but there are {layers} layers: lower budget.big or budget.skip"
            )
        if big < len(self.pinned):
            raise ValueError(
                f"budget.big={big:g} is less than budget.pinned={self.pinned} takes, whose layers are always big: "
                "raise budget.big"
            )
        big = _tidy(big - len(self.pinned))
        return Counts(skip, routed - big - skip, big)


def routed_layers(layers: int, pinned: Sequence[int]) -> list[int]:
    """The layers of a model whose module a router chooses.

    >>> routed_layers(4, [0])
    [1, 2, 3]

    Raises:
        ValueError: a pinned layer is not there, or all are pinned.
    """
    for layer in pinned:
        if not 0 <= layer < layers:
            raise ValueError(f"budget.pinned={layer} is no layer: there are 0 to {layers - 1}")
    routed = [layer for layer in range(layers) if layer not in pinned]
    if not routed:
        raise ValueError(f"budget.pinned leaves no choice: it names all {layers} layers; leave one out")
    return routed


def _tidy(value: float) -> float:
    """Whole numbers as int, and 0.3 * 12 as 3.6 rather than 3.5999999999999996."""
    value = round(value, 9)
    return int(value) if value == int(value) else value


def _whole_or_share(name: str, value: float) -> float:
    # a bool is an int to Python: true would be one big module
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"budget.{name}={value!r} is not a number: give modules per token (6) or a share (0.5)")
    if value < 0:
        raise ValueError(f"budget.{name}={value:g} is negative: give modules per token (6) or a share (0.5)")
    if value > 1 and value != int(value):
        raise ValueError(
            f"budget.{name}={value:g} is neither a whole number of modules nor a share: "
            f"give {math.floor(value)}, {math.ceil(value)}, or a share strictly between 0 and 1"
        )
    return int(value) if value == int(value) else value  # so 1.0 is one module, not all layers
