"""What a report says of its figures in words: of the same rows that are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from duo.evaluation.verdict import Claim
from duo.report.paper.captions import CAPTIONS
from duo.report.paper.evidence import Evidence, Missing
from duo.report.paper.rows import Rows, split_rows


def tell(figure: str, rows: Rows) -> list[str]:
    """What is to be known of a figure, and its numbers in a sentence for each hold-out."""
    found = split_rows(rows, "holdout").items() if figure in TELL else ()
    return [
        *([CAPTIONS[figure]] if rows else []),
        *(f"{holdout}: {TELL[figure](part)}" for holdout, part in found),
    ]


def judge_in_words(claim: Claim) -> str:
    """A verdict; where nothing is decided, and it is not the numbers that leave it open, with the reason."""
    whys = [part.why for part in claim.parts if part.verdict == "undecided"]
    if not claim.parts:
        return f"{claim.verdict}: not measured"
    return f"{claim.verdict}: too few trainings" if claim.verdict == "undecided" and any(whys) else claim.verdict


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
    last = max(row["position"] for row in rows)
    return f"averages over {rows[0]['sequences']} sequences, positions 0 to {last}."


def _tell_mixtures(rows: Rows) -> str:
    return f"averages over {rows[0]['sequences']} sequences."


def _tell_passage(rows: Rows) -> str:
    means = {name: sum(row[name] for row in rows) / len(rows) for name in ("small", "big", "router", "oracle")}
    return "mean loss of these tokens: " + ", ".join(f"{name} {mean:.2f}" for name, mean in means.items()) + "."


def tell_intervals(rows: Rows, level: float) -> list[str]:
    """What bars and bands of a figure are; nothing of figures without any."""
    if not any(row.get("difference_low") is not None for row in rows):
        return []
    seeds = ", and over seeds" * any(row.get("seeds", 1) > 1 for row in rows)
    return [
        f"Bars, bands and numbers in brackets are {level:.0%} intervals over documents{seeds}, not widened for the "
        "number of tests as those of claims are."
    ]


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
    "2": _tell_sequences, "3": _tell_sequences, "9": _tell_mixtures, "5": _tell_passage,
    "4a": _tell_rows, "4b": _tell_budgets, "4c": _tell_rows, "8": _tell_trainings,
}  # fmt: skip
