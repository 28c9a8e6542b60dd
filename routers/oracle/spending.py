"""What the oracle lets each token spend: the budget, a schedule along the sequence, or an average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from duo import Counts, Spec
from duo.search.patterns import counts_of, ramp


@dataclass(frozen=True)
class Spending:
    """The counts of modules that tokens may have.

    Raises:
        ValueError: options that do not fit the budget or each other, named as the router's.
    """

    spec: Spec
    per: str
    schedule: Sequence[float] | None

    def __post_init__(self) -> None:
        if self.per not in ("token", "average"):
            raise ValueError(f"router.per={self.per!r} must be token or average")
        if self.average and self.spec.budget.skip:
            raise ValueError("router.per=average prices big modules alone: set budget.skip=0")
        if self.schedule is not None:
            _check_schedule(list(self.schedule), self.spec)
            if self.average or self.spec.budget.skip:
                raise ValueError("router.schedule needs router.per=token and budget.skip=0")

    @property
    def average(self) -> bool:
        """Whether tokens may differ, at a price."""
        return self.per == "average"

    def wanted(self, tokens: int) -> Counts | Tensor:
        """What each token of a sequence may spend, as `trial.search` takes it."""
        if self.average:
            return torch.tensor([0, 0, self.spec.layers])
        if self.schedule is None:
            return self.spec.budget
        first, last = self.schedule
        return ramp(first, last, self.spec.layers, tokens)

    def counts(self) -> Tensor:
        """count_CM: every (skip, small, big) count that a token may have."""
        layers = self.spec.layers
        if self.average:
            return ramp(0, layers, layers, layers + 1)
        if self.schedule is None:
            return counts_of(layers, self.spec.budget)
        least, most = math.floor(min(self.schedule)), math.ceil(max(self.schedule))
        return ramp(least, most, layers, most - least + 1)


def _check_schedule(ends: list[float], spec: Spec) -> None:
    big = spec.budget.big
    if len(ends) != 2 or sum(ends) / 2 != big or big != int(big) or min(ends) < 0 or max(ends) > spec.layers:
        raise ValueError(f"router.schedule={ends} must be two numbers that average a whole budget.big={big:g}")
