"""What a report says of its figures in words: of the same rows that are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from duo.report.paper.tables import Rows


def tell(figure: str, rows: Rows) -> list[str]:
    """A sentence for each hold-out; none for figures that are to be looked at."""
    if figure not in TELL:
        return []
    holdouts: dict[str, Rows] = {}
    for row in rows:
        holdouts.setdefault(row["holdout"], []).append(row)
    return [f"{holdout}: {TELL[figure](part)}" for holdout, part in holdouts.items()]


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
TELL: dict[str, Callable[[Rows], str]] = {
    "4a": _tell_rows, "4b": _tell_budgets, "4c": _tell_rows, "8": _tell_trainings,
}  # fmt: skip
