"""What is found on calibration data: offsets and prices that hold a router to its budget, and good fixed patterns."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from duo.backbone import BIG, MODULES, SKIP, SMALL, Budget, Counts, Gate
from duo.routing.compose import even_patterns, one_hot
from duo.routing.trial import Trial
from duo.search.patterns import flips, promising_swaps, swaps

FORMAT = 2  # raise it with every change of duo that alters trained or calibrated routers
UNDER = 0.005  # calibrated routes spend this share less than the budget, so that hold-outs stay within it
SWAPS = 8  # of the most promising ones, tried in a round

log = logging.getLogger(__name__)


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
    for _ in range(rounds):
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
    for _ in range(rounds):  # 14 leave 1/16,384 of the range
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > most else (low, middle)
    return high


def mean_losses(trials: Sequence[Trial], pattern_PL: Tensor, tokens: int) -> Tensor:
    """mean_P: the loss in nats of every token following one pattern, averaged over the calibration sets.

    Args:
        trials: of one or more domains.
        pattern_PL: the patterns.
        tokens: of each domain; its first ones are taken.
    """
    losses: dict[str, list[tuple[float, Tensor]]] = {}
    for trial in trials:
        seen = losses.setdefault(trial.domain, [])
        left, length = tokens - sum(tokens for tokens, _ in seen), trial.tokens_BT.shape[1]
        if left > 0:
            part = trial.part(-(-int(left) // length), length)
            # context same is no shortcut here: under a fixed pattern earlier tokens do follow it
            mean_P = part.search(pattern_PL, (), "same").mean_loss_P
            assert mean_P is not None
            seen.append((part.tokens_BT.numel(), mean_P))
    sets = [
        torch.stack([n * mean_P for n, mean_P in seen]).sum(0) / sum(n for n, _ in seen) for seen in losses.values()
    ]
    return torch.stack(sets).mean(0)  # sets count alike, whatever their sizes


def climb(trials: Sequence[Trial], pattern_L: Tensor, tokens: int, near: Callable[[Tensor], Tensor] = swaps) -> Tensor:
    """A fixed pattern whose loss nothing near it lowers, found from `pattern_L` on in at most as many rounds as layers.

    Args:
        trials: as in `mean_losses`.
        pattern_L: where to start.
        tokens: as in `mean_losses`.
        near: a pattern, and those of the same counts that are tried in its place, (P, L); by default all swaps.
    """
    for _ in range(len(pattern_L)):
        near_PL = near(pattern_L)
        best = int(mean_losses(trials, near_PL, tokens).argmin())
        pattern_L = near_PL[best]
        if best == 0:
            break
    return pattern_L


def climb_to_fixed(trials: Sequence[Trial], count_M: Tensor, tokens: int) -> Tensor:
    """A good fixed pattern of one (skip, small, big) count, where the patterns are too many to be listed.

    From two patterns on, that which keeps big where all big would lose most without it and an even one, the most
    promising swaps are tried while one of them helps; the better end is taken. What a swap promises is the sum of what
    its two layers change alone.

    Args:
        trials: as in `mean_losses`.
        count_M: modules of the pattern.
        tokens: as in `mean_losses`, to choose the better end on; a quarter of them is climbed on.
    """
    few = max(tokens // 4, 1)
    modules = count_M.nonzero().flatten().tolist()

    def near(pattern_L: Tensor) -> Tensor:
        flip_LM = _flip_losses(trials, pattern_L, modules, few)
        promise_1J, swapped_1JL = promising_swaps(pattern_L[None], flip_LM[None], SWAPS)
        return torch.cat((pattern_L[None], swapped_1JL[promise_1J.isfinite()]))

    starts = _from_all_big(trials, count_M, few), *even_patterns(count_M[None])
    ends = []
    for number, start_L in enumerate(starts, 1):
        log.info(
            "climb  to a fixed pattern of %s big, %s skipped, start %s of 2", *count_M[[BIG, SKIP]].tolist(), number
        )
        ends.append(climb(trials, start_L, few, near))
    end_PL = torch.stack(ends).unique(dim=0)  # both may end alike, and no search takes a pattern twice
    return end_PL[mean_losses(trials, end_PL, tokens).argmin()]


def _from_all_big(trials: Sequence[Trial], count_M: Tensor, tokens: int) -> Tensor:
    """The pattern of the counts that alters all big where that hurts least, each layer on its own."""
    all_big_L = torch.full((int(count_M.sum()),), BIG)
    others = [module for module in (SKIP, SMALL) if count_M[module]]
    loss_LM = _flip_losses(trials, all_big_L, others, tokens)
    hurt_L = (loss_LM * count_M)[:, others].sum(-1)  # by how many take each
    rest_R = hurt_L.argsort(descending=True, stable=True)[int(count_M[BIG]) :]
    pattern_L = all_big_L.index_fill(0, rest_R, SMALL)
    rather_skip_R = (loss_LM[rest_R, SMALL] - loss_LM[rest_R, SKIP]).argsort(descending=True, stable=True)
    return pattern_L.index_fill(0, rest_R[rather_skip_R[: int(count_M[SKIP])]], SKIP)


def _flip_losses(trials: Sequence[Trial], pattern_L: Tensor, modules: Sequence[int], tokens: int) -> Tensor:
    """loss_LM of the pattern with one layer's module replaced; infinite for its own, and for other modules."""
    flip_PL = flips(pattern_L, modules)
    loss_LM = torch.full((len(pattern_L), len(MODULES)), torch.inf)
    if len(flip_PL):
        layer_P = (flip_PL != pattern_L).int().argmax(1)
        loss_LM[layer_P, flip_PL.gather(1, layer_P[:, None])[:, 0]] = mean_losses(trials, flip_PL, tokens)
    return loss_LM


def _logits_by_domain(logits_of: Callable[[Trial], Gate], trials: Sequence[Trial], offset_M: Tensor) -> list[Tensor]:
    """Logits of all tokens and layers, (N, M) for each domain, under the routes of these offsets."""
    found: dict[str, list[Tensor]] = {}
    for trial in trials:
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
