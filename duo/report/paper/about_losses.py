"""Claims about losses: figure 4, and what a search promises."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from duo.evaluation.intervals import Estimate, jackknife
from duo.evaluation.trace import Candidates
from duo.evaluation.verdict import Part, above, below, of_seeds, within
from duo.report.paper.evidence import Evidence, Missing
from duo.report.paper.statement import claim

KEPT = 1e-3  # nats by which a promise that is kept may be missed


@claim(
    "oracle_below_random",
    "The oracle loses less than the best of 100 random patterns, and that less than random routes.",
    "figure 4a",
)
def _oracle_below_random(evidence: Evidence, holdout: str) -> list[Part]:
    oracle, best, random = (
        evidence.budget(name, evidence.layers // 2) for name in ("committed", "best_of_random", "random")
    )
    return [
        below("oracle minus the best of 100", evidence.minus(oracle, best, holdout)),
        below("best of 100 minus random", evidence.minus(best, random, holdout)),
    ]


@claim(
    "router_near_fixed",
    "The learned router is nearer to the best of 100 and to fixed than to the oracle.",
    "figure 4a",
)
def _router_near_fixed(evidence: Evidence, holdout: str) -> list[Part]:
    half, parts = evidence.layers // 2, []
    router, oracle = evidence.budget("softmax_budget", half, "routers"), evidence.budget("committed", half)
    for title, name in (("the best of 100", "best_of_random"), ("fixed", "fixed_best")):
        found = evidence.of(_nearer, holdout, router, oracle, evidence.budget(name, half))
        parts.append(above(f"distance to the oracle minus that to {title}", found))
    return of_seeds(parts, router.seeds)


def _nearer(router: np.ndarray, oracle: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(router - oracle) - np.abs(router - other))


@claim(
    "interior_minimum", "With half of the layers big, the oracle loses less than with none and with all.", "figure 4b"
)
def _interior_minimum(evidence: Evidence, holdout: str) -> list[Part]:
    half, oracle = evidence.layers // 2, partial(evidence.budget, "committed")
    return [
        below(f"oracle at {half} minus at {end}", evidence.minus(oracle(half), oracle(end), holdout))
        for end in (0, evidence.layers)
    ]


@claim(
    "lowest_at_half",
    "The oracle loses least with half of the layers big: less than with one fewer or one more.",
    "figure 4b",
)
def _lowest_at_half(evidence: Evidence, holdout: str) -> list[Part]:
    half, oracle = evidence.layers // 2, partial(evidence.budget, "committed")
    return [
        below(f"oracle at {half} minus at {other}", evidence.minus(oracle(half), oracle(other), holdout))
        for other in (half - 1, half + 1)
    ]


@claim("one_big_beats_all", "With one big layer a token, an oracle loses less than all big.", "figure 4b")
def _one_big_beats_all(evidence: Evidence, holdout: str) -> list[Part]:
    one, all_big = (evidence.budget("committed", big) for big in (1, evidence.layers))
    return [below("oracle with one big layer minus all big", evidence.minus(one, all_big, holdout))]


@claim("oracle_below_fixed", "At every budget the oracle loses less than the best fixed pattern.", "figure 4b")
def _oracle_below_fixed(evidence: Evidence, holdout: str) -> list[Part]:
    return _oracle_below(evidence, holdout, "fixed", "fixed_best")


@claim("oracle_below_router", "At every budget the oracle loses less than the learned router.", "figure 4b")
def _oracle_below_router(evidence: Evidence, holdout: str) -> list[Part]:
    return _oracle_below(evidence, holdout, "router", "softmax_budget")


def _oracle_below(evidence: Evidence, holdout: str, title: str, name: str) -> list[Part]:
    """That the oracle loses less than a row, at each budget that routers were trained for."""
    parts = []
    for big in _trained_budgets(evidence):
        oracle, other = evidence.budget("committed", big), evidence.budget(name, big, "routers")
        found = [below(f"oracle minus {title} at {big}", evidence.minus(oracle, other, holdout))]
        parts += of_seeds(found, other.seeds) if other.learned else found
    return parts


@claim(
    "more_big_helps",
    "On average, the best fixed pattern and the learned router lose less with more big layers.",
    "figure 4b",
)
def _more_big_helps(evidence: Evidence, holdout: str) -> list[Part]:
    budgets, parts = _trained_budgets(evidence), []
    weight_K = np.array(budgets) - np.mean(budgets)
    weight_K /= (weight_K**2).sum()

    def slope(*losses: np.ndarray) -> np.ndarray:
        return np.asarray(sum(weight * loss for weight, loss in zip(weight_K, losses, strict=True)))

    for title, name in (("fixed", "fixed_best"), ("router", "softmax_budget")):
        rows = [evidence.budget(name, big, "routers") for big in budgets]
        where = f"{budgets[0]} to {budgets[-1]}"
        found = [below(f"{title}: nats a further big layer, {where}", evidence.of(slope, holdout, *rows))]
        learned = [row.seeds for row in rows if row.learned]
        parts += of_seeds(found, min(learned)) if learned else found
    return parts


def _trained_budgets(evidence: Evidence) -> list[int]:
    budgets = evidence.goes_over("routers")
    if len(budgets) < 2:
        raise Missing("part routers has one budget alone")
    return budgets


@claim(
    "number_of_routes",
    "Over all budgets, the oracle's loss follows the number of routes to choose from (correlation with its logarithm "
    "below -0.8), and not that of big layers (within 0.5 of none).",
    "section 3.2.1",
)
def _number_of_routes(evidence: Evidence, holdout: str) -> list[Part]:
    found = _candidates(evidence, holdout)
    big_G = np.arange(evidence.layers + 1)
    routes_G = np.array([math.log(math.comb(evidence.layers, big)) for big in big_G])

    def correlation(with_G: np.ndarray) -> Estimate:
        return evidence.over_candidates(
            lambda keep_B: float(np.corrcoef(_mean(found.best_BG, found, keep_B), with_G)[0, 1]), found
        )

    return [
        below("correlation of loss with the logarithm of the number of routes", correlation(routes_G), -0.8),
        within("correlation of loss with the number of big layers", correlation(big_G), 0.5),
    ]


@claim(
    "fewer_routes",
    "It is the number of routes: an oracle that may choose among only 12, 66, ... routes with half of the layers big "
    "gains on a random one of them what it gains with one, two, ... big layers, which allow as many (give or take half "
    "of what having few routes costs).",
    "section 3.2.1, our test",
)
def _fewer_routes(evidence: Evidence, holdout: str) -> list[Part]:
    half = evidence.layers // 2
    return [_as_much(evidence, holdout, big, half, big) for big in range(1, half)]


@claim(
    "mirrored_budgets",
    "Budgets that allow as many routes, as 4 and 8 big layers of 12 do, let an oracle gain as much on a random one of "
    "them (give or take half of what having few routes costs).",
    "section 3.2.1, our test",
)
def _mirrored_budgets(evidence: Evidence, holdout: str) -> list[Part]:
    return [_as_much(evidence, holdout, big, evidence.layers - big) for big in range(1, evidence.layers // 2)]


def _as_much(evidence: Evidence, holdout: str, big: int, other: int, few: int | None = None) -> Part:
    """The claim that as much is gained with so many big layers as with others, of as few routes as with `few`."""
    found, layers, half = _candidates(evidence, holdout), evidence.layers, evidence.layers // 2

    def share(keep_B: np.ndarray) -> float:
        cost = _gain(found, keep_B, half) - _gain(found, keep_B, half, 1)
        return (_gain(found, keep_B, big) - _gain(found, keep_B, other, few)) / cost

    says = f"gain at {big} minus at {other}, of as many routes, as a part of what {layers} routes gain less than all"
    return within(f"{says}, at {half}", evidence.over_candidates(share, found), 0.5)


def _candidates(evidence: Evidence, holdout: str) -> Candidates:
    found = evidence.candidates.get(holdout)
    if found is None or evidence.layers < 4:
        raise Missing(f"no losses of candidates on {holdout}")
    return found


def _gain(found: Candidates, keep_B: np.ndarray, big: int, few: int | None = None) -> float:
    """What the best candidate loses less than one drawn; of as few as there are with `few` big layers."""
    best_B = found.best_BG[:, big] if few is None else found.few_BN[:, few - 1]
    return float(_mean(found.mean_BG[:, big] - best_B, found, keep_B))


def _mean(loss_BX: np.ndarray, found: Candidates, keep_B: np.ndarray) -> np.ndarray:
    """A token's mean over the sequences that are kept."""
    return np.asarray(loss_BX[keep_B].sum(0) / found.tokens_B[keep_B].sum())


@claim("constant_budget", "A constant budget loses less than one that falls or rises along the sequence.", "figure 4c")
def _constant_budget(evidence: Evidence, holdout: str) -> list[Part]:
    constant = evidence.row("schedules", "constant")
    return [
        above(f"{name} minus constant", evidence.minus(evidence.row("schedules", name), constant, holdout))
        for name in ("falling", "rising")
    ]


@claim(
    "promises",
    f"No pass attains what the literal oracle promises; the committed one keeps its promise ({KEPT} nats).",
    "duo",
)
def _promises(evidence: Evidence, holdout: str) -> list[Part]:
    half, found = evidence.layers // 2, _candidates(evidence, holdout)
    literal = evidence.budget("same", half).subset[holdout].sequences
    promised = literal._replace(loss_ZB=found.best_BG[None, :, half])
    broken = jackknife(np.subtract, literal, promised, level=evidence.level)
    score = evidence.budget("committed", half).subset[holdout]
    if score.promised_loss is None:
        raise Missing("the oracle promised nothing")
    kept = score.loss - score.promised_loss  # of the same pass, so that nothing varies
    return [
        above("literal oracle: replayed minus promised", broken),
        within("committed oracle: replayed minus promised", Estimate(kept, (kept, kept)), KEPT),
    ]
