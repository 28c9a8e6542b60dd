"""Sets of patterns, and the counts of their modules."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from duo.backbone import BIG, MODULES, SKIP, SMALL, Budget, Counts

MOST_LISTED = 1 << 17
"""Patterns that are listed at most: all of any budget of 12 layers (117,810 at most), half big up to 19 layers."""


def all_patterns(layers: int, modules: Sequence[int] = (SMALL, BIG)) -> Tensor:
    """Every pattern over the modules, (P, L): all 2^L of small and big, or all 3^L with skip.

    >>> all_patterns(2, (1, 2)).tolist()
    [[1, 1], [1, 2], [2, 1], [2, 2]]
    """
    return torch.tensor(list(itertools.product(sorted(modules), repeat=layers)))


def patterns_of(layers: int, budget: Budget | Counts) -> Tensor:
    """Every pattern of a budget, (P, L): exactly so many big and skip; of each count that occurs, if it is fractional.

    >>> len(patterns_of(12, Budget(6))), len(patterns_of(12, Budget(0.3, 0.2)))
    (924, 67980)

    Raises:
        ValueError: the budget needs more modules than there are layers, or has too many patterns to list.
    """
    return patterns_with(counts_of(layers, budget))


def patterns_with(count_CM: Tensor) -> Tensor:
    """Every pattern of these (skip, small, big) counts, (P, L).

    Raises:
        ValueError: they have more than `MOST_LISTED` patterns.
    """
    check_listed(count_CM, "draw some (duo.search.draw_patterns), or search with method='local'")
    return torch.cat([_exactly(sum(count), count[BIG], count[SKIP]) for count in count_CM.tolist()])


def can_list(count_CM: Tensor) -> bool:
    """Whether the patterns of these (skip, small, big) counts are few enough to be listed."""
    return count_patterns(count_CM) <= MOST_LISTED


def check_listed(count_CM: Tensor, hint: str) -> None:
    """Raises ValueError where they are too many; `hint` is the way out."""
    if not can_list(count_CM):
        named = [f"{big} big and {skip} skipped" for skip, _, big in count_CM.tolist()]
        counts = " or ".join(named if len(named) <= 4 else [named[0], "...", named[-1]])
        raise ValueError(
            f"{int(count_CM[0].sum())} layers with {counts} have {count_patterns(count_CM):,} patterns, and at most "
            f"{MOST_LISTED:,} are listed: {hint}"
        )


def count_patterns(count_CM: Tensor) -> int:
    """How many patterns have any of these (skip, small, big) counts; none is listed.

    >>> count_patterns(counts_of(12, Budget(0.3, 0.2))), count_patterns(counts_of(30, Budget(15)))
    (67980, 155117520)
    """
    return sum(
        math.comb(sum(count), count[BIG]) * math.comb(sum(count) - count[BIG], count[SKIP])
        for count in count_CM.tolist()
    )


def draw_patterns(count_M: Tensor, patterns: int) -> Tensor:
    """So many different patterns of one (skip, small, big) count, drawn uniformly by torch's generator, (P, L).

    All of them, in random order, where there are no more.
    """
    if can_list(count_M[None]):
        every_PL = patterns_with(count_M[None])
        return every_PL[torch.randperm(len(every_PL))[:patterns]]
    sorted_L = torch.arange(len(MODULES)).repeat_interleave(count_M)
    wanted = min(patterns, count_patterns(count_M[None]))
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < wanted:  # one that was drawn before is drawn anew, so that all stay equally likely
        drawn[tuple(sorted_L[torch.randperm(len(sorted_L))].tolist())] = None
    return torch.tensor([*drawn])


def counts_of(layers: int, budget: Budget | Counts) -> Tensor:
    """count_CM: every (skip, small, big) count that a token of the budget may have; several if it is fractional.

    >>> counts_of(12, Budget(0.3)).tolist()
    [[0, 9, 3], [0, 8, 4]]
    >>> counts_of(12, Budget(6, pinned=[0])).tolist()
    [[0, 6, 5]]

    Raises:
        ValueError: the budget needs more modules than there are layers.
    """
    wanted = budget.of(layers)
    layers = round(sum(wanted))  # that are routed
    counts = [
        (skip, layers - big - skip, big)
        for big in sorted({math.floor(wanted.big), math.ceil(wanted.big)})
        for skip in sorted({math.floor(wanted.skip), math.ceil(wanted.skip)})
        if big + skip <= layers
    ]
    return torch.tensor(counts)


def ramp(first: float, last: float, layers: int, tokens: int) -> Tensor:
    """count_TM whose big modules go linearly from the first position to the last, the rest small.

    >>> ramp(3, 1, layers=4, tokens=3).tolist()
    [[0, 1, 3], [0, 2, 2], [0, 3, 1]]
    """
    big_T = torch.linspace(first, last, tokens, dtype=torch.float64).round(decimals=9)
    big_T = big_T.round().long()  # halves to even, so that both ends round alike
    return torch.stack((torch.zeros_like(big_T), layers - big_T, big_T), dim=-1)


def flips(pattern_L: Tensor, modules: Sequence[int]) -> Tensor:
    """Every pattern that gives one layer another of the modules, (P, L).

    >>> flips(torch.tensor([2, 1]), (1, 2)).tolist()
    [[1, 1], [2, 2]]
    """
    flipped = []
    for layer, module in itertools.product(range(len(pattern_L)), modules):
        if module != pattern_L[layer]:
            flipped.append(pattern_L.clone())
            flipped[-1][layer] = module
    return torch.stack(flipped) if flipped else pattern_L[:0].view(0, len(pattern_L))


def promising_swaps(route_BL: Tensor, flip_BLM: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """promise_BJ and route_BJL of the swaps of two layers that promise the lowest values, at most `width`.

    Args:
        route_BL: the routes whose layers are swapped.
        flip_BLM: the value of each route with one layer's module replaced; infinite for its own. The sum of two flips
            is what their swap promises: infinite where nothing would change.
        width: swaps of each route.
    """
    layers = route_BL.shape[1]
    becomes_BLL = flip_BLM.gather(2, route_BL[:, None].expand(-1, layers, -1))  # layer l with the module of layer m
    one_Q, other_Q = torch.triu_indices(layers, layers, 1, device=route_BL.device)
    promise_BQ = becomes_BLL[:, one_Q, other_Q] + becomes_BLL[:, other_Q, one_Q]
    promise_BJ, pair_BJ = promise_BQ.topk(min(width, len(one_Q)), dim=1, largest=False)
    at_BJ2 = torch.stack((one_Q[pair_BJ], other_Q[pair_BJ]), dim=-1)
    route_BJL = route_BL[:, None].expand(-1, at_BJ2.shape[1], -1)
    return promise_BJ, route_BJL.scatter(2, at_BJ2, route_BJL.gather(2, at_BJ2.flip(-1)))


def _exactly(layers: int, big: int, skip: int) -> Tensor:
    """Every pattern of one count, (P, L): by the layers that are big, then by those of the others that are skipped."""
    big_QB, skip_KS = _combinations(layers, big), _combinations(layers - big, skip)  # S indexes the layers left
    pattern_QL = torch.full((len(big_QB), layers), SMALL).scatter(1, big_QB, BIG)
    left_QL = (pattern_QL == SMALL).nonzero()[:, 1].view(len(big_QB), layers - big)
    pattern_QKL = pattern_QL[:, None].repeat(1, len(skip_KS), 1)
    return pattern_QKL.scatter_(2, left_QL[:, skip_KS], SKIP).flatten(0, 1)


def _combinations(number: int, of: int) -> Tensor:
    """Every choice of so many out of a number of things, in rising order."""
    return torch.tensor([*itertools.combinations(range(number), of)], dtype=torch.int64)


def codes(count_XM: Tensor, layers: int) -> Tensor:
    """One number for each (skip, small, big) count that sums to the layers."""
    return count_XM[..., BIG] * (layers + 1) + count_XM[..., SKIP]


def pattern_counts(pattern_PL: Tensor) -> Tensor:
    """count_PM: the (skip, small, big) modules of each pattern."""
    return torch.stack([(pattern_PL == module).sum(1) for module in range(len(MODULES))], dim=1)


def pattern_codes(pattern_PL: Tensor) -> Tensor:
    """The code of each pattern's counts, (P,)."""
    return codes(pattern_counts(pattern_PL), pattern_PL.shape[1])


def meets(code_P: Tensor, wanted: int, layers: int, at_most: bool) -> Tensor:
    """Which codes meet a wanted one: the same counts; or at most as many big, at least as many skip where any is."""
    if not at_most:
        return code_P == wanted
    big, skip = divmod(wanted, layers + 1)
    big_P, skip_P = code_P // (layers + 1), code_P % (layers + 1)
    return (big_P <= big) & ((skip_P >= skip) if skip else (skip_P == 0))


def check_patterns(pattern_PL: Tensor, layers: int) -> None:
    """Raises ValueError where these are no candidates for so many layers."""
    if pattern_PL.dim() != 2 or not len(pattern_PL):
        raise ValueError(f"patterns of shape {tuple(pattern_PL.shape)}: give at least one, as (P, {layers})")
    if pattern_PL.shape[1] != layers:
        raise ValueError(f"patterns of {pattern_PL.shape[1]} layers do not fit a backbone of {layers}")
    if not ((pattern_PL >= SKIP) & (pattern_PL <= BIG)).all():
        raise ValueError(f"patterns hold unknown modules: {SKIP} is skip, {SMALL} small, {BIG} big")
    if len(pattern_PL.unique(dim=0)) != len(pattern_PL):
        raise ValueError("the patterns hold the same one twice")
