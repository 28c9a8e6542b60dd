"""How difficult tokens are, and which of them more compute would help (section 3.2.2 of the paper).

A token's *loss* under the small modules says how hard it is; its *potential* says what compute can do about it: how
much less it loses under the oracle at a budget. The two differ: what no context foretells stays hard whatever is spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor

from duo.backbone import BIG, SMALL, Budget, Counts
from duo.routing.compose import even_patterns, replay
from duo.routing.trial import Trial
from duo.search.patterns import can_list, counts_of, patterns_with

TOP = 0.1  # share of the tokens, by small-model loss, that count as hard
BOUND = 0.1  # nats: a potential below it counts as none
PER_MILLION = (10, 100, 1_000, 10_000)  # edges of the table by frequency


class Difficulty(NamedTuple):
    """What each token of a batch loses, in nats: 0 where there is no label."""

    loss_small_BT: Tensor
    """Under small modules alone."""
    loss_big_BT: Tensor
    """Under big modules alone."""
    loss_oracle_BT: Tensor
    """Under the committed oracle's routes, all of them in one real pass."""
    gap_BT: Tensor
    """The potential: small minus oracle. Below 0 where routes that help other tokens, or a budget with skips, hurt."""
    route_BTL: Tensor
    """The oracle's route."""


@torch.no_grad()
def difficulty(trial: Trial, budget: Budget | Counts, start_CL: Tensor | None = None, width: int = 8) -> Difficulty:
    """Scores the trial's tokens under all small, all big and the oracle that spends `budget` on every token.

    Where a budget's patterns are too many to be listed, the oracle's routes are found by local search.

    Args:
        trial: with labels.
        budget: of the oracle; fractional ones are rounded at each position as `trial.counts` does.
        start_CL: for a local search, a pattern of each count that occurs to start from (see `start_patterns`); None:
            patterns that spread their big layers evenly.
        width: swaps that a local search tries a round.

    Raises:
        NoLabels: the trial has none.
        ValueError: the budget needs more modules than there are layers.
    """
    count_CM = counts_of(trial.layers, budget)
    if can_list(count_CM):
        found = trial.search(patterns_with(count_CM), [budget])
    else:
        start_CL = even_patterns(count_CM) if start_CL is None else start_CL
        found = trial.search(start_CL, [budget], method="local", width=width)
    route_BTL = found.route_BTGL[:, :, 0]
    # the search's own loss is a promise: only a pass on all routes together is a result
    routes = torch.full_like(route_BTL, SMALL), torch.full_like(route_BTL, BIG), route_BTL
    small_BT, big_BT, oracle_BT = (trial.loss(trial.run(replay(route))) for route in routes)
    return Difficulty(small_BT, big_BT, oracle_BT, small_BT - oracle_BT, route_BTL)


class Losses(NamedTuple):
    """The same of the tokens of one text, in its order."""

    small_N: np.ndarray
    big_N: np.ndarray
    oracle_N: np.ndarray

    @property
    def gap_N(self) -> np.ndarray:
        """The potential."""
        return self.small_N - self.oracle_N


class Means(Struct, frozen=True):
    """Means over some tokens, in nats."""

    name: str
    tokens: int
    loss_small: float
    loss_big: float
    loss_oracle: float
    gap: float


def rank_by_potential(gap_N: np.ndarray) -> np.ndarray:
    """Places of the tokens, those with most potential first; equal ones in the order of the text.

    >>> rank_by_potential(np.array([0.5, 2.0, 0.5])).tolist()
    [1, 0, 2]
    """
    return (-gap_N).argsort(kind="stable")


def hardest(small_N: np.ndarray, top: float = TOP) -> np.ndarray:
    """Places of the tokens of the highest small-model loss, a share `top` of all (rounded up), the hardest first."""
    return (-small_N).argsort(kind="stable")[: int(np.ceil(top * len(small_N)))]


def hard_without_potential(losses: Losses, top: float = TOP, bound: float = BOUND) -> np.ndarray:
    """Places of the hard tokens that no compute helps, the hardest first: uncertain whatever is spent on them.

    Hard are those that `hardest` tells; not helped those whose potential is less than `bound` nats.

    >>> hard_without_potential(Losses(*np.array([[5.0, 4, 1], [5, 4, 1], [5, 2, 1]])), top=0.6).tolist()
    [0]
    """
    hard_R = hardest(losses.small_N, top)
    return hard_R[losses.gap_N[hard_R] < bound]


def average(groups: Mapping[str, np.ndarray], losses: Losses) -> list[Means]:
    """The means of groups of tokens, each given by which tokens are in it; groups without tokens are left out."""
    rows = []
    for name, in_N in groups.items():
        if count := int(in_N.sum()):
            means = [float(loss_N[in_N].mean()) for loss_N in (*losses, losses.gap_N)]
            rows.append(Means(name, count, *means))
    return rows


def by_frequency(token_N: np.ndarray, count_V: np.ndarray) -> dict[str, np.ndarray]:
    """Groups of tokens by how often they stand in a million tokens; `count_V` says how often each one was counted.

    >>> [*by_frequency(np.array([0, 1]), np.array([0, 5]))]
    ['never', 'below 10', '10 to 100', '100 to 1,000', '1,000 to 10,000', '10,000 and more']
    """
    per_million_N = count_V[token_N] * (1e6 / max(count_V.sum(), 1))
    inner = zip(PER_MILLION[:-1], PER_MILLION[1:], strict=True)
    return {
        "never": per_million_N == 0,
        f"below {PER_MILLION[0]}": (per_million_N > 0) & (per_million_N < PER_MILLION[0]),
        **{f"{low:,} to {high:,}": (per_million_N >= low) & (per_million_N < high) for low, high in inner},
        f"{PER_MILLION[-1]:,} and more": per_million_N >= PER_MILLION[-1],
    }


def by_context(front_N: np.ndarray) -> dict[str, np.ndarray]:
    """Groups of tokens by how many tokens the model sees in front of them: 1, 2 to 3, 4 to 7, and so on.

    >>> [*by_context(np.array([1, 5]))]
    ['1', '2 to 3', '4 to 5']
    """
    power_N, most = np.frexp(front_N)[1] - 1, int(front_N.max())  # exact, which a logarithm is not
    ends = {2**power: min(2 ** (power + 1) - 1, most) for power in range(int(power_N.max()) + 1)}
    names = [str(first) if first == last else f"{first} to {last}" for first, last in ends.items()]
    return {name: power_N == power for power, name in enumerate(names)}
