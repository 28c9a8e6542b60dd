"""The oracle of the paper's stage 2: the best route of every token, found by enumeration with its label."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from duo import Gate, Router, Spec, Trial, replay
from duo.search import all_patterns, patterns_of


class Oracle(Router):
    """The best route of every token under the budget; it consults the labels, so it is a bound.

    Args:
        spec: layers, width and budget.
        context: `committed` (each token among the routes already chosen; attainable) or `same` (the paper's literal
            reading: its promise is not what one pass attains).
        schedule: big modules at the first and the last position, linear between them and rounded so that the mean is
            exactly the budget (figure 4c); null: the budget everywhere.
        per: `token` (every token spends the budget) or `average` (tokens may differ: loss plus a price of FLOPs,
            which is found on calibration data).
        price_tokens: calibration tokens on which `average` looks for its price.
    """

    price: Tensor

    def __init__(
        self,
        spec: Spec,
        context: str = "committed",
        schedule: Sequence[float] | None = None,
        per: str = "token",
        price_tokens: int = 128,
    ) -> None:
        super().__init__(spec)
        if per not in ("token", "average"):
            raise ValueError(f"router.per={per!r} must be token or average")
        if context not in ("committed", "same"):
            raise ValueError(f"router.context={context!r} must be committed or same")
        if schedule is not None:
            _check_schedule(schedule, spec, per)
        if per == "average" and spec.budget.skip:
            raise ValueError("router.per=average prices big modules alone: set budget.skip=0")
        self.context, self.schedule, self.per, self.price_tokens = context, schedule, per, price_tokens
        self.register_buffer("price", torch.zeros(()))

    def route(self, trial: Trial) -> Gate:
        """Searches with the labels, and follows what it finds."""
        if self.per == "average":
            return replay(self._priced(trial, float(self.price)))
        if self.schedule is None:
            patterns, budget = patterns_of(self.spec.layers, self.spec.budget), self.spec.budget
            return replay(trial.search(patterns, [budget], self.context).route_BTKL[:, :, 0])
        count_TM = self._scheduled(trial.tokens_BT.shape[1])
        return replay(trial.search(all_patterns(self.spec.layers), [count_TM], self.context).route_BTKL[:, :, 0])

    def calibrate(self, trials: Sequence[Trial]) -> None:
        """For `average`: the price at which the calibration tokens spend the budget, by bisection of its logarithm."""
        if self.per == "token":
            return
        first = {trial.domain: trial for trial in reversed(trials)}.values()
        parts = [trial.part(4, max(self.price_tokens // 4, 1)) for trial in first]
        low, high = -20.0, 0.0  # of the price's base-10 logarithm, nats per FLOP
        for _ in range(14):
            middle = (low + high) / 2
            spent = max(float((self._priced(part, 10**middle) == 2).double().sum(-1).mean()) for part in parts)
            low, high = (middle, high) if spent > self.spec.budget.big else (low, middle)
        self.price.fill_(10**high)

    def _priced(self, trial: Trial, price: float) -> Tensor:
        any_count_M = torch.tensor([0, 0, self.spec.layers])
        found = trial.search(all_patterns(self.spec.layers), [any_count_M], self.context, price=price, at_most=True)
        return found.route_BTKL[:, :, 0]

    def _scheduled(self, tokens: int) -> Tensor:
        """count_TM whose big modules go from the first to the last of `schedule`."""
        assert self.schedule is not None
        wanted_T = torch.linspace(self.schedule[0], self.schedule[1], tokens, dtype=torch.float64)
        big_T = wanted_T.round(decimals=9).round().long()  # halves to even, so that both ends round alike
        return torch.stack((torch.zeros_like(big_T), self.spec.layers - big_T, big_T), dim=-1)


def _check_schedule(schedule: Sequence[float], spec: Spec, per: str) -> None:
    big = spec.budget.big
    if (
        len(schedule) != 2
        or sum(schedule) / 2 != big
        or big != int(big)
        or min(schedule) < 0
        or max(schedule) > spec.layers
    ):
        raise ValueError(
            f"router.schedule={list(schedule)} must be two numbers that average a whole budget.big={big:g}"
        )
    if per == "average" or spec.budget.skip:
        raise ValueError("router.schedule needs router.per=token and budget.skip=0")
