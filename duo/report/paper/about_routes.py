"""Claims about routes, and about tokens: figures 2, 3, 5 and 6."""

from __future__ import annotations

from functools import partial

import numpy as np

from duo.backbone import BIG, SKIP
from duo.evaluation.intervals import Estimate
from duo.evaluation.verdict import Part, above, below, within
from duo.report.paper import shares
from duo.report.paper.evidence import Evidence, Missing
from duo.report.paper.statement import claim

EVEN = 0.05  # between the shares of two halves of the layers that are called even
SLIGHT = 0.2  # kappa up to which agreement is called slight (Landis and Koch 1977)
NO_POTENTIAL = 0.1  # nats that an oracle gains at most on a token without potential
SOME = 0.01  # of the hardest tokens
MOSTLY = 0.6  # share from which on a layer is mostly skipped, or mostly kept
MUCH = 0.2  # between the shares of two halves of the layers
IN_ORDER = 0.5  # correlation of skips and layer from which on they are called an early exit


def _late(evidence: Evidence, budget: str, holdout: str) -> tuple[str, Estimate]:
    found = evidence.trace(f"oracle at {budget}", holdout)
    where = f"oracle at {evidence.budgets[budget]}: share of big in the later half of the layers minus the earlier"
    return where, evidence.over(partial(shares.lateness, found, BIG), found)


@claim("late_at_few", "With a third of the layers big, the oracle prefers later ones.", "figure 2a")
def _late_at_few(evidence: Evidence, holdout: str) -> list[Part]:
    return [above(*_late(evidence, "few", holdout))]


@claim("even_at_half", f"With half of them big, it uses both halves alike (shares within {EVEN}).", "figure 2b")
def _even_at_half(evidence: Evidence, holdout: str) -> list[Part]:
    return [within(*_late(evidence, "half", holdout), EVEN)]


@claim("early_at_many", "With two thirds of them big, it prefers earlier ones.", "figure 2c")
def _early_at_many(evidence: Evidence, holdout: str) -> list[Part]:
    return [below(*_late(evidence, "many", holdout))]


@claim(
    "skips_by_layer",
    f"With half of the layers skipped, the oracle skips some mostly and keeps others mostly ({MOSTLY:.0%}), in no "
    f"order of early exit (correlation with the layer below {IN_ORDER}).",
    "figure 2d",
)
def _skips_by_layer(evidence: Evidence, holdout: str) -> list[Part]:
    found = evidence.trace("oracle with skips", holdout)
    skipped = partial(shares.layer_shares, found, SKIP)
    most = evidence.over(lambda keep_B: float(skipped(keep_B).max()), found)
    least = evidence.over(lambda keep_B: float(skipped(keep_B).min()), found)
    order = evidence.over(partial(shares.exit_order, found, SKIP), found)
    return [
        above("share of skips in the layer that is skipped most", most, MOSTLY),
        below("share of skips in the layer that is skipped least", least, 1 - MOSTLY),
        below("correlation of skips with the layer", order, IN_ORDER),
    ]


@claim("skips_persist", "A layer that a sequence skips early it skips later more often than usual.", "section 5")
def _skips_persist(evidence: Evidence, holdout: str) -> list[Part]:
    found = evidence.trace("oracle with skips", holdout)
    more = evidence.over(partial(shares.persistence, found, SKIP), found)
    return [above("later skips of layers that were skipped earlier, above the layers' rates", more)]


@claim("router_late_early", "This learned router gives later layers and earlier tokens more.", "figure 3a-c")
def _router_late_early(evidence: Evidence, holdout: str) -> list[Part]:
    parts = []
    for budget, big in evidence.budgets.items():
        found = evidence.trace(f"router at {budget}", holdout)
        late, early = (evidence.over(partial(of, found, BIG), found) for of in (shares.lateness, shares.earliness))
        parts.append(above(f"router at {big}: share of big in the later half of the layers minus the earlier", late))
        parts.append(above(f"router at {big}: share of big at the first third of the tokens minus the last", early))
    return parts


@claim(
    "router_exits_early",
    f"With skips, this learned router resembles early exit: later layers are skipped more (correlation above "
    f"{IN_ORDER}), and by much (the later half more than the earlier by {MUCH}).",
    "figure 3d",
)
def _router_exits_early(evidence: Evidence, holdout: str) -> list[Part]:
    found = evidence.trace("router with skips", holdout)
    order, more = (evidence.over(partial(of, found, SKIP), found) for of in (shares.exit_order, shares.lateness))
    return [
        above("correlation of skips with the layer", order, IN_ORDER),
        above("share of skips in the later half of the layers minus the earlier", more, MUCH),
    ]


@claim(
    "little_agreement",
    f"The oracle's and this router's routes agree little beyond chance (kappa below {SLIGHT}).",
    "section 3.3",
)
def _little_agreement(evidence: Evidence, holdout: str) -> list[Part]:
    parts = []
    for budget, big in evidence.budgets.items():
        oracle, router = (evidence.trace(f"{who} at {budget}", holdout) for who in ("oracle", "router"))
        parts.append(below(f"kappa at {big}", evidence.over(partial(shares.agreement, oracle, router), oracle), SLIGHT))
    return parts


@claim(
    "hard_without_potential",
    f"Some tokens of high loss have no potential: more than {SOME:.0%} of the hardest tenth, where the oracle gains at "
    f"most {NO_POTENTIAL} nats.",
    "figure 5",
)
def _hard_without_potential(evidence: Evidence, holdout: str) -> list[Part]:
    small, oracle = evidence.trace("all small", holdout), evidence.trace("oracle at half", holdout)
    share = evidence.over(partial(shares.without_potential, small, oracle, bound=NO_POTENTIAL), small)
    return [above("share of the hardest tenth that has no potential", share, SOME)]


@claim(
    "line_starts",
    "Tokens that begin a line are hard for all small, but have less potential than others.",
    "figure 6",
    "code",
)
def _line_starts(evidence: Evidence, holdout: str) -> list[Part]:
    small, oracle = evidence.trace("all small", holdout), evidence.trace("oracle at half", holdout)
    marked_BT = evidence.words.get(holdout, {}).get("line_start_BT")
    if marked_BT is None:
        raise Missing("nobody says which tokens begin a line")

    def lead(value_BT: np.ndarray) -> Estimate:
        return evidence.over(partial(shares.lead, value_BT, marked_BT, small.scored_BT), small)

    return [
        above("loss of line starts under all small, minus the others'", lead(small.loss_BT)),
        below("gain of the oracle on line starts, minus the others'", lead(small.loss_BT - oracle.loss_BT)),
    ]
