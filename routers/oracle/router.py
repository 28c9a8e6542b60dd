"""The oracle: searches a trial with its labels, and follows what it finds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from duo import Gate, Router, Spec, Trial, replay
from duo.backbone import BIG
from duo.routing.calibration import bisect
from routers.candidates import Candidates
from routers.oracle.spending import Spending


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
        search: `exact` (enumeration), or for deep models `local` or `beam`, from fixed patterns found in calibration;
            null: exact, or where there are too many patterns to list them, local.
        width: swaps that `local` tries a round, beginnings that `beam` keeps.
    """

    price: Tensor

    def __init__(
        self,
        spec: Spec,
        context: str = "committed",
        schedule: Sequence[float] | None = None,
        per: str = "token",
        price_tokens: int = 128,
        search: str | None = None,
        width: int = 8,
    ) -> None:
        super().__init__(spec)
        if context not in ("committed", "same"):
            raise ValueError(f"router.context={context!r} must be committed or same")
        if search not in (None, "exact") and (context != "committed" or per != "token"):
            raise ValueError(f"router.search={search} needs router.context=committed and router.per=token")
        self.context, self.price_tokens = context, price_tokens
        self.spending = Spending(spec, per, schedule)
        listed = context != "committed" or per != "token"
        self.candidates = Candidates(self.spending.counts(), search, width, listed)
        self.search_method = self.candidates.method
        self.register_buffer("price", torch.zeros(()))

    def route(self, trial: Trial) -> Gate:
        """Searches with the labels, and follows what it finds."""
        return replay(self._searched(trial, float(self.price)))

    def calibrate(self, trials: Sequence[Trial]) -> None:
        """Finds the price at which the calibration tokens spend an `average` budget, and where to start a search."""
        self.candidates.calibrate(trials)
        if self.spending.average:
            first = {trial.domain: trial for trial in reversed(trials)}.values()
            parts = [trial.part(4, max(self.price_tokens // 4, 1)) for trial in first]

            def spent(power: float) -> float:
                return max(_mean_big(self._searched(part, 10**power)) for part in parts)

            self.price.fill_(10 ** bisect(spent, self.spec.budget.big, -20, 0))  # nats per FLOP

    def _searched(self, trial: Trial, price: float) -> Tensor:
        """route_BTL of the search at this price."""
        wanted = self.spending.wanted(trial.tokens_BT.shape[1])
        return self.candidates.best(trial, wanted, self.context, price=price, at_most=self.spending.average)


def _mean_big(route_BTL: Tensor) -> float:
    return float((route_BTL == BIG).double().sum(-1).mean())
