"""What a report says of its figures in words: of the same rows that are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from duo.report.paper.evidence import Evidence, Missing
from duo.report.paper.tables import Rows, split_rows


def tell(figure: str, rows: Rows) -> list[str]:
    """A sentence for each hold-out; none for figures that are to be looked at."""
    if figure not in TELL:
        return []
    return [f"{holdout}: {TELL[figure](part)}" for holdout, part in split_rows(rows, "holdout").items()]


def _difference(row: dict[str, Any]) -> str:
    low, high = row["difference_low"], row["difference_high"]
    return f"{row['difference']:+.4f}" + ("" if low is None else f" [{low:+.4f}, {high:+.4f}]")


def _tell_rows(rows: Rows) -> str:
    return "; ".join(f"{row['row']} {_difference(row)}" for row in rows if row["difference"]) + " nats a token."


def _tell_budgets(rows: Rows) -> str:
    oracle = [row for row in rows if row["row"] == "oracle"]
    if not oracle:
        return "the oracle was not measured."
    best = min(oracle, key=lambda row: row["loss"])
    one = next((row for row in oracle if row["big"] == 1), None)
    said = f"the oracle loses least with {best['big']} big layers, {_difference(best)} nats a token against all big"
    return said + (f"; with one, {_difference(one)}." if one else ".")


def _tell_trainings(rows: Rows) -> str:
    named = {row["row"]: row for row in rows}
    found = [f"{title} {_difference(named[name])}" for name, title in TRAINED.items() if name in named]
    return "; ".join(found) + " nats a token against the dense model of big FFNs."


TRAINED = {
    "duo_100": "trained jointly, all big", "duo_50": "half big", "big_first_50": "big first, half big",
    "duo_0": "trained jointly, all small", "dense_small": "dense small", "dense_equal_flops": "dense of half the cost",
}  # fmt: skip


def _tell_sequences(rows: Rows) -> str:
    return f"shares are averages over {rows[0]['sequences']} sequences." if rows else ""


def tell_intervals(rows: Rows, level: float) -> list[str]:
    """What bars and bands of a figure are; nothing of figures without any."""
    if not any(row.get("difference_low") is not None for row in rows):
        return []
    seeds = ", and over seeds" * any(row.get("seeds", 1) > 1 for row in rows)
    return [f"Bars and bands are {level:.0%} intervals over documents{seeds}, each for itself."]


def stands_on(figure: str, evidence: Evidence) -> list[str]:
    """Where a figure's backbones are not the one that the report is of: which they are."""
    try:
        names = STANDS_ON[figure](evidence) if figure in STANDS_ON else []
    except Missing:
        return []
    found = dict.fromkeys(evidence.origins[name] for name in names if name in evidence.origins)
    return [f"Not on the report's own backbone, but on others ({'; '.join(found)})."] if found else []


STANDS_ON: dict[str, Callable[[Evidence], list[str]]] = {
    "7": lambda evidence: evidence.mixtures(), "8": lambda evidence: ["dense"],
    "9": lambda evidence: evidence.mixtures("opt"),
}  # fmt: skip
"""The parts and traces of figures that may stand on backbones of their own."""
TELL: dict[str, Callable[[Rows], str]] = {
    "2": _tell_sequences, "3": _tell_sequences, "9": _tell_sequences,
    "4a": _tell_rows, "4b": _tell_budgets, "4c": _tell_rows, "8": _tell_trainings,
}  # fmt: skip
