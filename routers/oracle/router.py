"""The oracle: searches a trial with its labels, and follows what it finds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from duo import Gate, Router, Spec, Trial, replay
from duo.backbone import BIG
from duo.routing.calibration import bisect, climb
from duo.routing.compose import even_patterns
from duo.search import METHODS
from duo.search.patterns import can_list, check_listed, patterns_with
from routers.oracle.spending import Spending

START_TOKENS = 512  # of each calibration set, to find the start patterns of an approximate search on


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
    start_CL: Tensor

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
        if search is not None and search not in METHODS:
            raise ValueError(f"router.search={search!r} must be one of {', '.join(METHODS)}")
        if search not in (None, "exact") and (context != "committed" or per != "token"):
            raise ValueError(f"router.search={search} needs router.context=committed and router.per=token")
        if width < 1:
            raise ValueError(f"router.width={width} must be at least 1")
        self.context, self.price_tokens = context, price_tokens
        self.spending = Spending(spec, per, schedule)
        count_CM = self.spending.counts()
        search = _affordable(search, count_CM, listed=context != "committed" or per != "token")
        self.search, self.width = search, width
        self.search_method = None if search == "exact" else search
        self.register_buffer("price", torch.zeros(()))
        self.register_buffer("start_CL", even_patterns(count_CM), persistent=search != "exact")

    def route(self, trial: Trial) -> Gate:
        """Searches with the labels, and follows what it finds."""
        return replay(self._searched(trial, float(self.price)))

    def calibrate(self, trials: Sequence[Trial]) -> None:
        """Finds the price at which the calibration tokens spend an `average` budget, and where to start a search."""
        if self.search != "exact":
            self.start_CL.copy_(torch.stack([climb(trials, start_L, START_TOKENS) for start_L in self.start_CL]))
        if self.spending.average:
            first = {trial.domain: trial for trial in reversed(trials)}.values()
            parts = [trial.part(4, max(self.price_tokens // 4, 1)) for trial in first]

            def spent(power: float) -> float:
                return max(_mean_big(self._searched(part, 10**power)) for part in parts)

            self.price.fill_(10 ** bisect(spent, self.spec.budget.big, -20, 0))  # nats per FLOP

    def _searched(self, trial: Trial, price: float) -> Tensor:
        """route_BTL of the search at this price."""
        exact, spending = self.search == "exact", self.spending
        found = trial.search(
            patterns_with(spending.counts()) if exact else self.start_CL,
            [spending.wanted(trial.tokens_BT.shape[1])],
            self.context,
            price=price,
            at_most=spending.average,
            method=self.search,
            width=self.width,
        )
        return found.route_BTGL[:, :, 0]


def _affordable(search: str | None, count_CM: Tensor, listed: bool) -> str:
    """The method that was asked for; else `exact`, or `local` where there are too many patterns to list.

    Raises:
        ValueError: they are too many, and must be `listed`.
    """
    if search is None:
        search = "exact" if listed or can_list(count_CM) else "local"
    if search == "exact":
        hint = "router.search=local needs no list, with router.context=committed and router.per=token"
        check_listed(count_CM, hint)
    return search


def _mean_big(route_BTL: Tensor) -> float:
    return float((route_BTL == BIG).double().sum(-1).mean())
