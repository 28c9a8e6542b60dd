"""Claims about routes: figures 2 and 3, and those of appendix A on figure 9."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from duo.backbone import BIG, SKIP
from duo.evaluation.intervals import Estimate
from duo.evaluation.trace import Trace
from duo.evaluation.verdict import Part, above, below, of_seeds, within
from duo.report.paper import shares
from duo.report.paper.evidence import Evidence, Missing
from duo.report.paper.statement import claim

EVEN = 0.05  # between the shares of two halves of the layers that are called even
SLIGHT = 0.2  # kappa up to which agreement is called slight (Landis and Koch 1977)
MOSTLY = 0.6  # share from which on a layer is mostly skipped, or mostly kept
MUCH = 0.2  # between the shares of two halves of the layers
LATER = "share of {} in the later half of the layers minus the earlier"
EARLIER = "share of {} at the first third of the tokens minus the last"
MODULES = {BIG: "big", SKIP: "skips"}  # as claims call what is used
IN_ORDER = 0.5  # correlation of skips and layer from which on they are called an early exit


def _late(evidence: Evidence, budget: str, holdout: str) -> tuple[str, Estimate]:
    found = evidence.seeds(f"oracle at {budget}", holdout)
    where = f"oracle at {evidence.budgets[budget]}: {LATER.format(MODULES[BIG])}"
    return where, evidence.over(partial(shares.lateness, module=BIG), found)


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
    found = evidence.seeds("oracle with skips", holdout)
    # of twelve layers one is skipped most whatever the oracle does: its interval allows for having been chosen
    most = evidence.largest_over(partial(shares.layer_shares, module=SKIP), found)
    least = evidence.largest_over(lambda trace, keep_B: 1 - shares.layer_shares(trace, keep_B, SKIP), found)
    order = evidence.over(partial(shares.exit_order, module=SKIP), found)
    return [
        above("share of skips in the layer that is skipped most", most, MOSTLY),
        above("share kept in the layer that is kept most", least, MOSTLY),
        below("correlation of skips with the layer", order, IN_ORDER),
    ]


@claim("skips_persist", "A layer that a sequence skips early it skips later more often than usual.", "section 5")
def _skips_persist(evidence: Evidence, holdout: str) -> list[Part]:
    found = evidence.seeds("oracle with skips", holdout)
    more = evidence.over(partial(shares.persistence, module=SKIP), found)
    return [above("later skips of layers that were skipped earlier, above the layers' rates", more)]


@claim("router_late_early", "The learned router gives later layers and earlier tokens more.", "figure 3a-c")
def _router_late_early(evidence: Evidence, holdout: str) -> list[Part]:
    parts = []
    for budget, big in evidence.budgets.items():
        found = evidence.seeds(f"router at {budget}", holdout)
        parts += _late_and(evidence, f"router at {big}", found, BIG, above)
    return parts


def _late_and(
    evidence: Evidence, name: str, found: list[Trace], module: int, early_is: Callable[[str, Estimate], Part]
) -> list[Part]:
    """A learned router uses a module more in later layers; and at earlier tokens more (`above`) or less (`below`)."""
    late, early = (evidence.over(partial(of, module=module), found) for of in (shares.lateness, shares.earliness))
    used = MODULES[module]
    parts = [above(f"{name}: {LATER.format(used)}", late), early_is(f"{name}: {EARLIER.format(used)}", early)]
    return of_seeds(parts, len(found))


@claim(
    "router_exits_early",
    f"With skips, the learned router resembles early exit: later layers are skipped more (correlation above "
    f"{IN_ORDER}), and by much (the later half more than the earlier by {MUCH}).",
    "figure 3d",
)
def _router_exits_early(evidence: Evidence, holdout: str) -> list[Part]:
    found = evidence.seeds("router with skips", holdout)
    order, more = (evidence.over(partial(of, module=SKIP), found) for of in (shares.exit_order, shares.lateness))
    parts = [
        above("correlation of skips with the layer", order, IN_ORDER),
        above("share of skips in the later half of the layers minus the earlier", more, MUCH),
    ]
    return of_seeds(parts, len(found))


@claim(
    "little_agreement",
    f"The oracle's and the learned router's routes agree little beyond chance (kappa below {SLIGHT}).",
    "section 3.3",
)
def _little_agreement(evidence: Evidence, holdout: str) -> list[Part]:
    parts = []
    for budget, big in evidence.budgets.items():
        oracle, routers = evidence.trace(f"oracle at {budget}", holdout), evidence.seeds(f"router at {budget}", holdout)
        kappa = evidence.over(partial(shares.agreement, oracle=oracle), routers)
        parts += of_seeds([below(f"kappa at {big}", kappa, SLIGHT)], len(routers))
    return parts


@claim(
    "opt_late_early",
    "On an opt backbone, routers that mix small and big give later layers and earlier tokens more.",
    "appendix A",
)
def _opt_late_early(evidence: Evidence, holdout: str) -> list[Part]:
    parts = []
    for name, found in _of_opt(evidence, holdout, skipping=False):
        parts += _late_and(evidence, name, found, BIG, above)
    return parts


@claim(
    "opt_skips_late",
    "On an opt backbone, routers that may skip do so more in later layers and at later tokens.",
    "appendix A",
)
def _opt_skips_late(evidence: Evidence, holdout: str) -> list[Part]:
    parts = []
    for name, found in _of_opt(evidence, holdout, skipping=True):
        parts += _late_and(evidence, name, found, SKIP, below)
    return parts


def _of_opt(evidence: Evidence, holdout: str, skipping: bool) -> list[tuple[str, list[Trace]]]:
    """Names and traces of the routers on an opt backbone that skip, or that never do; raises Missing."""
    named = [(name, evidence.seeds(name, holdout)) for name in evidence.mixtures("opt")]
    found = [(name, traces) for name, traces in named if skipping == any(map(shares.skips, traces))]
    if not found:
        raise Missing(f"no router on an opt backbone {'skips' if skipping else 'mixes small and big alone'}")
    return found
