"""Claims about learned routers' routes: figures 3 and 7, and those of appendix A on figure 9."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from duo.backbone import BIG, SKIP
from duo.evaluation.intervals import Estimate
from duo.evaluation.trace import Trace
from duo.evaluation.verdict import Part, above, below, of_seeds
from duo.report.paper import shares
from duo.report.paper.about_routes import IN_ORDER, LATER, MODULES
from duo.report.paper.evidence import Evidence, Missing
from duo.report.paper.statement import claim

SLIGHT = 0.2  # kappa up to which agreement is called slight (Landis and Koch 1977)
MUCH = 0.2  # between the shares of two halves of the layers
EARLIER = "share of {} at the first third of the tokens minus the last"


@claim(
    "router_late_early",
    "The learned router gives later layers more, and with up to half of them big earlier tokens too.",
    "figure 3a-c",
)
def _router_late_early(evidence: Evidence, holdout: str) -> list[Part]:
    parts = []
    for budget, big in evidence.budgets.items():
        found = evidence.seeds(f"router at {budget}", holdout)
        of_budget = _late_and(evidence, f"router at {big}", found, BIG, above)
        parts += of_budget if big <= evidence.layers // 2 else of_budget[:1]  # the paper says it of 3a and 3b
    return parts


@claim(
    "router_later_than_oracle",
    "With half of the layers big and more, the learned router gives later layers more than the oracle does.",
    "section 3.3",
)
def _router_later_than_oracle(evidence: Evidence, holdout: str) -> list[Part]:
    parts = []
    for budget in ("half", "many"):
        oracle, routers = evidence.trace(f"oracle at {budget}", holdout), evidence.seeds(f"router at {budget}", holdout)
        more = evidence.over(partial(shares.later_than, other=oracle, module=BIG), routers)
        says = f"at {evidence.budgets[budget]}: {LATER.format(MODULES[BIG])}, the router's minus the oracle's"
        parts += of_seeds([above(says, more)], len(routers))
    return parts


@claim("router_small_at_end", "Towards the end of a sequence the learned router uses big modules less.", "figure 7")
def _router_small_at_end(evidence: Evidence, holdout: str) -> list[Part]:
    parts = []
    for name in evidence.mixtures():
        found = evidence.seeds(name, holdout)
        early = evidence.over(partial(shares.earliness, module=BIG), found)
        parts += of_seeds([above(f"{name}: {EARLIER.format(MODULES[BIG])}", early)], len(found))
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
