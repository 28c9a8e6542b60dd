"""Sets of patterns, and the counts of their modules."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from duo.backbone import BIG, MODULES, SKIP, SMALL, Budget, Counts


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
        ValueError: the budget needs more modules than there are layers.
    """
    return patterns_with(counts_of(layers, budget))


def patterns_with(count_CM: Tensor) -> Tensor:
    """Every pattern of these (skip, small, big) counts, (P, L)."""
    return torch.cat([_exactly(sum(count), count[BIG], count[SKIP]) for count in count_CM.tolist()])


def counts_of(layers: int, budget: Budget | Counts) -> Tensor:
    """count_CM: every (skip, small, big) count that a token of the budget may have; several if it is fractional.

    >>> counts_of(12, Budget(0.3)).tolist()
    [[0, 9, 3], [0, 8, 4]]

    Raises:
        ValueError: the budget needs more modules than there are layers.
    """
    wanted = budget.of(layers)
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


def swaps(pattern_L: Tensor) -> Tensor:
    """The pattern, and every other one that exchanges the modules of two of its layers, (P, L).

    >>> swaps(torch.tensor([2, 1, 1])).tolist()
    [[2, 1, 1], [1, 2, 1], [1, 1, 2]]
    """
    one_Q, other_Q = torch.triu_indices(len(pattern_L), len(pattern_L), 1)
    differ_Q = pattern_L[one_Q] != pattern_L[other_Q]
    at_Q2 = torch.stack((one_Q, other_Q), dim=-1)[differ_Q]
    swapped_QL = pattern_L.repeat(len(at_Q2), 1).scatter(1, at_Q2, pattern_L[at_Q2.flip(-1)])
    return torch.cat((pattern_L[None], swapped_QL))


def _exactly(layers: int, big: int, skip: int) -> Tensor:
    found = []
    for bigs in itertools.combinations(range(layers), big):
        rest = [layer for layer in range(layers) if layer not in bigs]
        for skips in itertools.combinations(rest, skip):
            found.append([BIG if layer in bigs else SKIP if layer in skips else SMALL for layer in range(layers)])
    return torch.tensor(found)


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
