"""The routes that a searching router chooses from: all of its counts, compared one by one or approximately."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from duo import Counts, Trial
from duo.routing.climb import start_patterns
from duo.routing.compose import even_patterns
from duo.search import METHODS
from duo.search.patterns import can_list, check_listed, patterns_with


class Candidates(nn.Module):
    """All patterns of some counts, and the method by which the best one of a token is found.

    Args:
        count_CM: every (skip, small, big) count that a token may have.
        search: `exact` (enumeration), or for deep models `local` or `beam`, from fixed patterns found in calibration;
            None: exact, or where there are too many patterns to list them, local.
        width: swaps that `local` tries a round, beginnings that `beam` keeps.
        listed: whether nothing but a list will do.

    Raises:
        ValueError: no such method, or there are too many patterns for it.
    """

    start_CL: Tensor

    def __init__(self, count_CM: Tensor, search: str | None, width: int, listed: bool = False) -> None:
        super().__init__()
        if search is not None and search not in METHODS:
            raise ValueError(f"router.search={search!r} must be one of {', '.join(METHODS)}")
        if width < 1:
            raise ValueError(f"router.width={width} must be at least 1")
        if search is None:
            search = "exact" if listed or can_list(count_CM) else "local"
        if search == "exact":
            hint = "router.search=local needs no list, with router.context=committed and router.per=token"
            check_listed(count_CM, hint)
        self.count_CM, self.search, self.width = count_CM, search, width
        self.register_buffer("start_CL", even_patterns(count_CM), persistent=search != "exact")

    @property
    def method(self) -> str | None:
        """How routes are found, if not among all that there are."""
        return None if self.search == "exact" else self.search

    def calibrate(self, trials: Sequence[Trial]) -> None:
        """Finds where an approximate search starts."""
        if self.method:
            self.start_CL.copy_(start_patterns(trials, self.count_CM))

    def best(self, trial: Trial, wanted: Counts | Tensor, context: str = "committed", **about: Any) -> Tensor:
        """route_BTL that spends what is wanted; `about` as in `Trial.search`."""
        pattern_PL = self.start_CL if self.method else patterns_with(self.count_CM)
        found = trial.search(pattern_PL, [wanted], context, method=self.search, width=self.width, **about)
        return found.route_BTGL[:, :, 0]
