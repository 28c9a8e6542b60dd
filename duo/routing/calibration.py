"""What is found on calibration data: offsets and prices that hold a router to its budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from duo.backbone import BIG, MODULES, SKIP, SMALL, Budget, Counts, Gate
from duo.progress import track
from duo.routing.compose import one_hot
from duo.routing.trial import Trial

FORMAT = 3  # raise it with every change of duo that alters trained or calibrated routers
UNDER = 0.005  # calibrated routes spend this share less than the budget, so that hold-outs stay within it


@torch.no_grad()
def calibrated(
    logits_of: Callable[[Trial], Gate], trials: Sequence[Trial], budget: Budget | Counts, rounds: int = 8
) -> Tensor:
    """offset_M to add to a router's logits so that its hard routes keep the budget on every calibration set.

    The offset of big (and of skip, if budgeted) is where the *worst* set spends 0.5 % less than the budget. It changes
    the states that later layers see, so passes repeat until the routes agree with it.

    Args:
        logits_of: a trial's logits: what it returns answers logits_BSM like a gate, minus infinity for a module that
            is never to be used.
        trials: of one or more domains.
        budget: modules whose budget is 0 should have no finite logits.
        rounds: most passes over the trials.
    """
    layers, device = trials[0].layers, trials[0].tokens_BT.device
    share = [count / layers for count in budget.of(layers)]
    # where nothing may be small, the offset of big settles skip too
    free = [module for module in (BIG, SKIP) if share[module] and not (module == SKIP and not share[SMALL])]
    if sum(map(bool, share)) < 2:  # one module takes all: nothing to weigh
        return torch.zeros(len(MODULES), device=device)
    offset_M = torch.zeros(len(MODULES), device=device)
    for _ in track(range(rounds), "round", at_most=True):
        found, before_M = _logits_by_domain(logits_of, trials, offset_M), offset_M.clone()
        for _ in range(3):  # big and skip compete, so their offsets depend on each other
            for module in free:
                offset_M[module] = _offset(module, share[module], found, offset_M)
        if torch.equal(before_M, offset_M):  # the states that these routes make ask for the same offsets
            break
    return offset_M


def bisect(spent: Callable[[float], float], most: float, low: float, high: float, rounds: int = 14) -> float:
    """Where a falling `spent` has just come down to `most`, between `low` and `high`; from above, so it is within it.

    >>> bisect(lambda x: 1 - x, most=0.25, low=0, high=1)
    0.75
    """
    for _ in track(range(rounds), "round"):  # 14 leave 1/16,384 of the range
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > most else (low, middle)
    return high


def _logits_by_domain(logits_of: Callable[[Trial], Gate], trials: Sequence[Trial], offset_M: Tensor) -> list[Tensor]:
    """Logits of all tokens and layers, (N, M) for each domain, under the routes of these offsets."""
    found: dict[str, list[Tensor]] = {}
    for trial in track(trials, "batch"):
        seen, logits = found.setdefault(trial.domain, []), logits_of(trial)

        def recorded(x_BSD: Tensor, layer: int, seen: list[Tensor] = seen, logits: Gate = logits) -> Tensor:
            logits_BSM = logits(x_BSD, layer)
            seen.append(logits_BSM.flatten(0, 1))
            return one_hot((logits_BSM + offset_M).argmax(dim=-1))

        trial.run(recorded)
    return [torch.cat(seen) for seen in found.values()]


def _offset(module: int, share: float, found: list[Tensor], offset_M: Tensor) -> Tensor:
    """Where the set that spends most is just under budget: the lowest offset for big, the highest for skip."""
    offsets = []
    for logits_NM in found:
        others_NM = logits_NM + offset_M
        others_NM[:, module] = -torch.inf
        lead_N = (logits_NM[:, module] - others_NM.amax(dim=1)).sort(descending=True).values
        wanted = share * (1 - UNDER if module == BIG else 1 + UNDER)  # who skips more spends less
        offsets.append(-lead_N[min(round(wanted * len(lead_N)), len(lead_N) - 1)])
    return torch.stack(offsets).min() if module == BIG else torch.stack(offsets).max()
