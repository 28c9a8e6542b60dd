"""Claims about the oracle's routes: figure 2."""

from __future__ import annotations

from functools import partial

from duo.backbone import BIG, SKIP
from duo.evaluation.intervals import Estimate
from duo.evaluation.verdict import Part, above, below, within
from duo.report.paper import shares
from duo.report.paper.evidence import Evidence
from duo.report.paper.statement import claim

EVEN = 0.05  # between the shares of two halves of the layers that are called even
MOSTLY = 0.6  # share from which on a layer is mostly skipped, or mostly kept
LATER = "share of {} in the later half of the layers minus the earlier"
MODULES = {BIG: "big", SKIP: "skips"}  # as claims call what is used
IN_ORDER = 0.5  # correlation of skips and layer from which on they are called an early exit


def _late(evidence: Evidence, budget: str, holdout: str) -> tuple[str, Estimate]:
    found = evidence.seeds(f"oracle at {budget}", holdout)
    where = f"oracle at {evidence.budgets[budget]}: {LATER.format(MODULES[BIG])}"
    return where, evidence.over(partial(shares.lateness, module=BIG), found)


def _later_than_half(evidence: Evidence, budget: str, holdout: str) -> tuple[str, Estimate]:
    found, half = evidence.seeds(f"oracle at {budget}", holdout), evidence.trace("oracle at half", holdout)
    where = f"the same at {evidence.budgets[budget]} minus at {evidence.budgets['half']}"
    return where, evidence.over(partial(shares.later_than, other=half, module=BIG), found)


@claim(
    "late_at_few", "With a third of the layers big, the oracle prefers later ones, more than with half.", "figure 2a"
)
def _late_at_few(evidence: Evidence, holdout: str) -> list[Part]:
    return [above(*_late(evidence, "few", holdout)), above(*_later_than_half(evidence, "few", holdout))]


@claim("even_at_half", f"With half of them big, it uses both halves alike (shares within {EVEN}).", "figure 2b")
def _even_at_half(evidence: Evidence, holdout: str) -> list[Part]:
    return [within(*_late(evidence, "half", holdout), EVEN)]


@claim("early_at_many", "With two thirds of them big, it prefers earlier ones, more than with half.", "figure 2c")
def _early_at_many(evidence: Evidence, holdout: str) -> list[Part]:
    return [below(*_late(evidence, "many", holdout)), below(*_later_than_half(evidence, "many", holdout))]


@claim(
    "skips_by_layer",
    f"With half of the layers skipped, the oracle skips some mostly and keeps others mostly ({MOSTLY:.0%}), in no "
    f"order of early exit or late start (correlation with the layer within {IN_ORDER} of none).",
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
        within("correlation of skips with the layer", order, IN_ORDER),
    ]


@claim("skips_persist", "A layer that a sequence skips early it skips later more often than usual.", "section 5")
def _skips_persist(evidence: Evidence, holdout: str) -> list[Part]:
    found = evidence.seeds("oracle with skips", holdout)
    more = evidence.over(partial(shares.persistence, module=SKIP), found)
    return [above("later skips of layers that were skipped earlier, above the layers' rates", more)]
