"""How much compute a token may spend. Imported by all of duo, imports nothing of it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Modules a token may use over all layers: whole numbers are modules, numbers strictly between 0 and 1 are shares.

    What is neither big nor skip is small.

    >>> Budget(big=6).of(12)
    Budget(big=6, skip=0)
    >>> Budget(big=0.3, skip=0.2).of(12)
    Budget(big=3.6, skip=2.4)
    >>> Budget(big=0.3).of(12).of(12)
    Budget(big=3.6, skip=0)

    Raises:
        ValueError: a value is negative, not a number, or neither whole nor a share.
    """

    big: float
    """Big modules per token (a whole number), or their share of the layers (strictly between 0 and 1)."""
    skip: float = 0
    """Skipped layers per token (a whole number), or their share of the layers (strictly between 0 and 1)."""

    def __post_init__(self) -> None:
        for name in ("big", "skip"):
            object.__setattr__(self, name, _whole_or_share(name, getattr(self, name)))

    def of(self, layers: int) -> Budget:
        """The budget in modules of a model with `layers` layers, possibly fractional; a resolved budget stays as it is.

        Raises:
            ValueError: big and skip together need more than `layers` modules.
        """
        if getattr(self, "_resolved", False):
            return self
        big, skip = (_tidy(value * layers) if 0 < value < 1 else value for value in (self.big, self.skip))
        if big + skip > layers:
            raise ValueError(
                f"budget big={self.big:g}, skip={self.skip:g} needs {big + skip:g} modules of a token, "
                f"but there are {layers} layers: lower budget.big or budget.skip"
            )
        resolved = copy.copy(self)  # not the constructor: 3.6 modules are a fine result, but no input
        for name, value in (("big", big), ("skip", skip), ("_resolved", True)):
            object.__setattr__(resolved, name, value)
        return resolved


def _tidy(value: float) -> float:
    """Whole numbers as int, and 0.3 * 12 as 3.6 rather than 3.5999999999999996."""
    value = round(value, 9)
    return int(value) if value == int(value) else value


def _whole_or_share(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"budget.{name}={value!r} is not a number: give modules per token (6) or a share (0.5)")
    if value < 0:
        raise ValueError(f"budget.{name}={value:g} is negative: give modules per token (6) or a share (0.5)")
    if value > 1 and value != int(value):
        raise ValueError(
            f"budget.{name}={value:g} is neither a whole number of modules nor a share: "
            f"give {math.floor(value)}, {math.ceil(value)}, or a share strictly between 0 and 1"
        )
    return int(value) if value == int(value) else value
