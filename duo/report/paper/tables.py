"""The numbers of every figure of the paper, as rows of a table: what is drawn, written as CSV and told in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from duo.backbone import BIG, MODULES, SKIP
from duo.evaluation.intervals import Estimate
from duo.evaluation.row import Row, pair_scores
from duo.evaluation.trace import Trace
from duo.report.paper.evidence import Evidence, add_losses
from duo.report.paper.rows import LAYER, Numbers, Rows, gather

PASSAGE = 32  # tokens of figure 5
CODE = 128  # tokens of figure 6
BUDGET_ROWS = {
    "oracle": ("budgets", "committed"), "oracle, literal": ("budgets", "same"), "fixed": ("budgets", "fixed_best"),
    "best of 100": ("budgets", "best_of_random"), "random": ("budgets", "random"),
    "router": ("routers", "softmax_budget"), "one router for every budget": ("routers", "any_budget"),
}  # fmt: skip
"""What figures call the rows of the parts."""
BOUNDS = ("oracle", "oracle, literal", "best of 100")
"""Those that labels choose."""


def _shares(names: dict[str, str]) -> Callable[[Evidence, str], Rows]:
    """Shares by panel, layer and position, of the traces that panels name."""

    def of(evidence: Evidence, holdout: str) -> Rows:
        return gather(partial(_panel, evidence, holdout, panel, name) for panel, name in names.items())

    return of


def _panel(evidence: Evidence, holdout: str, panel: str, name: str) -> Rows:
    module = SKIP if "skips" in name else BIG
    told = {"panel": f"{panel}: {_budget_title(evidence, name)}", "module": MODULES[module]}
    return [told | row for row in _by_place(evidence.trace(name, holdout), module)]


def _budget_title(evidence: Evidence, name: str) -> str:
    budget = name.rpartition(" ")[2]
    return f"{evidence.budgets[budget]} big" if budget in evidence.budgets else f"{evidence.layers // 2} skipped"


def _by_place(trace: Trace, module: int) -> Iterator[dict[str, Any]]:
    used_TL = ((trace.route_BTL == module) & trace.scored_BT[..., None]).sum(0)
    share_TL = used_TL / np.maximum(trace.scored_BT.sum(0), 1)[:, None]
    for position, share_L in enumerate(share_TL.round(3).tolist()):
        yield {"position": position, "sequences": len(trace.tokens_BT)} | _by_layer(share_L)


def _by_layer(values: Sequence[Any]) -> dict[str, Any]:
    """A column for each layer."""
    return {f"{LAYER}{layer}": value for layer, value in enumerate(values)}


def _interval(found: Estimate, name: str) -> dict[str, Any]:
    low, high = found.interval or (None, None)
    return {name: found.value, f"{name}_low": low, f"{name}_high": high}


def _against(evidence: Evidence, row: Row, other: Row, holdout: str) -> dict[str, Any]:
    """A row's loss, and its paired difference to another's."""
    return {"loss": pair_scores(row, other, holdout)[0].loss} | _interval(
        evidence.minus(row, other, holdout), "difference"
    )


def _figure_4a(evidence: Evidence, holdout: str) -> Rows:
    half = evidence.layers // 2

    def row(name: str) -> Rows:
        part, row = BUDGET_ROWS[name]
        against = _against(evidence, evidence.budget(row, half, part), evidence.budget("fixed_best", half), holdout)
        return [{"row": name} | against]

    return gather(partial(row, name) for name in ("random", "fixed", "best of 100", "router", "oracle"))


def _figure_4b(evidence: Evidence, holdout: str) -> Rows:
    all_big = evidence.budget("committed", evidence.layers)

    def point(title: str, big: int) -> Rows:
        part, name = BUDGET_ROWS[title]
        row = evidence.budget(name, big, part)
        told = {"row": title, "big": big} | _against(evidence, row, all_big, holdout)
        return [told | {"promised": row.subset[holdout].promised_loss}]

    def line(title: str) -> Rows:
        return gather(partial(point, title, big) for big in evidence.goes_over(BUDGET_ROWS[title][0]))

    return gather(partial(line, title) for title in BUDGET_ROWS)


def _figure_4c(evidence: Evidence, holdout: str) -> Rows:
    constant = evidence.row("schedules", "constant")
    rows = {name: evidence.row("schedules", name) for name in ("constant", "falling", "rising")}
    return [{"row": _schedule(name, row)} | _against(evidence, row, constant, holdout) for name, row in rows.items()]


def _schedule(name: str, row: Row) -> str:
    """What a schedule is called, with the numbers of big layers that it goes through."""
    through = row.options.get("schedule") or [row.budget["big"]]
    return f"{name}: {' to '.join(f'{big:g}' for big in through)}"


def _losses(evidence: Evidence, holdout: str, tokens: int, sequence: int) -> Rows:
    """Losses token by token, of the first tokens of a sequence."""
    traces = {column: evidence.trace(f"passage, {column}", holdout) for column in ("small", "big", "oracle", "router")}
    labels_T = traces["small"].labels_BT[sequence]
    return [
        {"place": place, "token": evidence.text(int(label))}
        | {column: round(float(trace.loss_BT[sequence, place]), 4) for column, trace in traces.items()}
        for place, label in enumerate(labels_T[:tokens])
        if label >= 0
    ]


def _figure_5(evidence: Evidence, holdout: str) -> Rows:
    return _losses(evidence, holdout, PASSAGE, _typical(evidence, holdout))


def _figure_6(evidence: Evidence, holdout: str) -> Rows:
    rows = _losses(evidence, holdout, CODE, _typical(evidence, holdout))
    return [row | {"gap": round(row["small"] - row["oracle"], 4)} for row in rows]


def _typical(evidence: Evidence, holdout: str) -> int:
    """The sequence whose loss under all small is the median: neither easy nor hard, and nobody's choice."""
    loss_B = evidence.trace("passage, small", holdout).loss_BT.mean(1)
    return int(np.argsort(loss_B, kind="stable")[len(loss_B) // 2])


def _figure_7(evidence: Evidence, holdout: str) -> Rows:
    rows = Rows()
    for name in evidence.mixtures():
        route_TL = evidence.trace(name, holdout).route_BTL[0]
        rows += [
            {"panel": name, "position": position} | _by_layer([MODULES[module] for module in route_L])
            for position, route_L in enumerate(route_TL)
        ]
    return rows


TRAININGS = {
    "duo_0": ("jointly", 0), "duo_25": ("jointly", 0.25), "duo_50": ("jointly", 0.5), "duo_75": ("jointly", 0.75),
    "duo_100": ("jointly", 1), "dense_small": ("dense", 0), "dense_equal_flops": ("dense", 0.5),
    "dense_big": ("dense", 1), "big_first_50": ("big first, frozen", 0.5),
}  # fmt: skip
"""How the rows of figure 8 were trained, and the share of big that they are scored with, or cost as much as."""
AGAINST = (1, -1)
"""The weights of a difference."""


def _figure_8(evidence: Evidence, holdout: str) -> Rows:
    rows = Rows()
    for name in (name for name in evidence.rows("dense") if name in TRAININGS):
        pair = evidence.matched("dense", name, "dense_big")
        training, p_big = TRAININGS[name]
        told = {"row": name, "training": training, "p_big": p_big, "seeds": pair[0].seeds}
        told["loss"] = pair_scores(pair[0], pair[1], holdout)[0].loss
        apart = add_losses(pair, AGAINST, holdout)
        of_seeds = apart.loss_ZB.sum(1) / apart.tokens_B.sum()
        told |= _interval(evidence.sum_paired(pair, AGAINST, holdout), "difference")
        rows.append(told | {"differences": " ".join(f"{value:.4f}" for value in of_seeds)})
    return rows


def _figure_9(evidence: Evidence, holdout: str) -> Rows:
    rows = Rows()
    for name in evidence.mixtures("opt"):
        trace = evidence.trace(name, holdout)
        used_BTLM = trace.route_BTL[..., None] == np.arange(len(MODULES))
        scored_T = np.maximum(trace.scored_BT.sum(0), 1)
        used_TM = (used_BTLM & trace.scored_BT[..., None, None]).mean(2).sum(0)
        for by, share_XM in (("layer", used_BTLM[trace.scored_BT].mean(0)), ("position", used_TM / scored_T[:, None])):
            told = {"panel": name, "by": by, "sequences": len(trace.tokens_BT)}
            rows += [
                told | {"at": at} | dict(zip(MODULES, share_M, strict=True))
                for at, share_M in enumerate(share_XM.round(4).tolist())
            ]
    return rows


def _panels(who: str) -> dict[str, str]:
    """The traces of figures 2 and 3."""
    return {"a": f"{who} at few", "b": f"{who} at half", "c": f"{who} at many", "d": f"{who} with skips"}


SHARES = "share of big (a to c) and of skips (d), by layer and position"
FIGURES = [
    Numbers("2", f"Routes of the oracle: {SHARES}", _shares(_panels("oracle"))),
    Numbers("3", f"Routes of the learned router, of its first seed: {SHARES}", _shares(_panels("router"))),
    Numbers("4a", "Loss with half of the layers big, minus the best fixed pattern's", _figure_4a),
    Numbers("4b", "Loss against the number of big layers, minus all big's", _figure_4b),
    Numbers("4c", "Loss under budgets that fall or rise along the sequence, minus the constant budget's", _figure_4c),
    Numbers("5", "Loss token by token", _figure_5),
    Numbers("6", "A passage by difficulty: small-model loss (a), and gap to the oracle (b)", _figure_6),
    Numbers("7", "Routes of one sequence under the three mixtures", _figure_7),
    Numbers("8", "Joint training, dense models and big first, minus the dense model of big FFNs", _figure_8),
    Numbers("9", "Routes of routers on an opt backbone: shares by layer and by position", _figure_9),
]
