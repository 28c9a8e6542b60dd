"""The numbers of every figure of the paper, as rows of a table: what is drawn, written as CSV and told in words."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from duo.backbone import BIG, MODULES, SKIP
from duo.evaluation.intervals import Estimate
from duo.evaluation.row import Row, pair_scores
from duo.evaluation.trace import Trace
from duo.report.paper.evidence import Evidence, Missing

Rows = list[dict[str, Any]]
"""Rows of a table: column to value."""
PASSAGE = 32  # tokens of figure 5
CODE = 128  # tokens of figure 6
LACKS = "lacks"
BUDGET_ROWS = {
    "oracle": ("budgets", "committed"), "oracle, literal": ("budgets", "same"), "fixed": ("budgets", "fixed_best"),
    "best of 100": ("budgets", "best_of_random"), "random": ("budgets", "random"),
    "router": ("routers", "softmax_budget"), "one router for every budget": ("routers", "any_budget"),
}  # fmt: skip
"""What figures call the rows of the parts."""


class Numbers(NamedTuple):
    """The table of one figure."""

    figure: str
    """As the paper numbers it."""
    title: str
    of: Callable[[Evidence, str], Rows]
    """Its rows on a hold-out; raises Missing."""


def collect(numbers: Numbers, evidence: Evidence) -> tuple[Rows, dict[str, str]]:
    """The rows on all hold-outs, and by hold-out why some are not there."""
    rows, missing = Rows(), {}
    for holdout in evidence.holdouts:
        try:
            found = numbers.of(evidence, holdout)
        except (Missing, LookupError) as error:
            found = [{LACKS: str(error)}]
        rows += [{"holdout": holdout} | row for row in found if LACKS not in row]
        if why := dict.fromkeys(row[LACKS] for row in found if LACKS in row):
            missing[holdout] = "; ".join(why)
    return rows, missing


def to_csv(rows: Rows) -> str:
    """Rows as CSV, columns in the order in which they come up."""
    text = io.StringIO()
    names = [*dict.fromkeys(name for row in rows for name in row)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def split_rows(rows: Rows, column: str) -> dict[str, Rows]:
    """Rows by the value of a column, in their order."""
    return {
        value: [row for row in rows if row[column] == value] for value in dict.fromkeys(row[column] for row in rows)
    }


def _gather(parts: Iterable[Callable[[], Rows]]) -> Rows:
    """The rows of those parts of a figure that were measured, and for each other part one that says why it is not."""
    rows = Rows()
    for part in parts:
        try:
            rows += part()
        except (Missing, LookupError) as error:
            rows.append({LACKS: str(error)})
    return rows


def _shares(names: dict[str, str]) -> Callable[[Evidence, str], Rows]:
    """Shares by panel, layer and position, of the traces that panels name."""

    def of(evidence: Evidence, holdout: str) -> Rows:
        return _gather(partial(_panel, evidence, holdout, panel, name) for panel, name in names.items())

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
    scored_T = np.maximum(trace.scored_BT.sum(0), 1)
    for (position, layer), count in np.ndenumerate(used_TL):
        share = round(float(count / scored_T[position]), 4)
        yield {"position": position, "layer": layer, "share": share, "sequences": len(trace.tokens_BT)}


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

    return _gather(partial(row, name) for name in ("random", "fixed", "best of 100", "router", "oracle"))


def _figure_4b(evidence: Evidence, holdout: str) -> Rows:
    all_big = evidence.budget("committed", evidence.layers)

    def point(title: str, big: int) -> Rows:
        part, name = BUDGET_ROWS[title]
        row = evidence.budget(name, big, part)
        told = {"row": title, "big": big} | _against(evidence, row, all_big, holdout)
        return [told | {"promised": row.subset[holdout].promised_loss}]

    def line(title: str) -> Rows:
        return _gather(partial(point, title, big) for big in evidence.goes_over(BUDGET_ROWS[title][0]))

    return _gather(partial(line, title) for title in BUDGET_ROWS)


def _figure_4c(evidence: Evidence, holdout: str) -> Rows:
    constant = evidence.row("schedules", "constant")
    names = ("constant", "falling", "rising")
    return [{"row": name} | _against(evidence, evidence.row("schedules", name), constant, holdout) for name in names]


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
            {"panel": name, "position": position, "layer": layer, "module": MODULES[module]}
            for (position, layer), module in np.ndenumerate(route_TL)
        ]
    return rows


TRAININGS = {
    "duo_0": ("jointly", 0), "duo_25": ("jointly", 0.25), "duo_50": ("jointly", 0.5), "duo_75": ("jointly", 0.75),
    "duo_100": ("jointly", 1), "dense_small": ("dense", 0), "dense_equal_flops": ("dense", 0.5),
    "dense_big": ("dense", 1), "big_first_50": ("big first, frozen", 0.5),
}  # fmt: skip
"""How the rows of figure 8 were trained, and the share of big that they are scored with, or cost as much as."""


def _figure_8(evidence: Evidence, holdout: str) -> Rows:
    rows = Rows()
    for name in (name for name in evidence.rows("dense") if name in TRAININGS):
        row, dense = evidence.pairs("dense", name, "dense_big")
        training, p_big = TRAININGS[name]
        told = {"row": name, "training": training, "p_big": p_big, "seeds": row.seeds}
        loss = pair_scores(row, dense, holdout)[0].loss
        rows.append(told | {"loss": loss} | _interval(evidence.minus_paired(row, dense, holdout), "difference"))
    return rows


def _figure_9(evidence: Evidence, holdout: str) -> Rows:
    rows = Rows()
    for name in evidence.mixtures("opt"):
        trace = evidence.trace(name, holdout)
        for module, title in enumerate(MODULES):
            rows += [{"panel": name, "module": title} | row for row in _by_place(trace, module)]
    return rows


def _panels(who: str) -> dict[str, str]:
    """The traces of figures 2 and 3."""
    return {"a": f"{who} at few", "b": f"{who} at half", "c": f"{who} at many", "d": f"{who} with skips"}


SHARES = "share of big, or of skips, by layer and position"
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
    Numbers("9", "Routes of routers on an opt backbone: shares by layer and position", _figure_9),
]
