"""Rows: one router's scores on every hold-out, and what they say beside another's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, structs

from duo.evaluation.intervals import Estimate, estimate_gap_closed
from duo.evaluation.knowable import Knowledge, Known, average_knowledge
from duo.evaluation.score import Cost, PerModule, Score, Scores, average_scores, difference

Label = Annotated[str, Meta(min_length=1, max_length=200)]
Words = Annotated[str, Meta(max_length=2000)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

PARTS = ("scores", "subset")


class Beside(Struct, frozen=True, forbid_unknown_fields=True):
    """What a row's place beside others says of it, on one hold-out."""

    minus: dict[str, Estimate]
    """Loss minus that of each row that all are compared with, paired."""
    gap_closed: Estimate
    """How much of its group's gap it closes; none where there is no gap, or one of its ends failed."""
    gap_from: str = ""
    """The row that this gap begins at; empty where there is none."""
    known: Known | UnsetType = UNSET
    """What it knows and makes of that, where the comparison names its knowledge; else left out."""


class Row(Struct, frozen=True, forbid_unknown_fields=True):
    """One router beside others: what it is, and its scores."""

    router: Label
    """Name of the router."""
    options: dict[str, Any]
    """Its options."""
    budget: PerModule
    """Modules per token."""
    digests: dict[Label, Digest] = {}
    """Of the backbone's weights, and of the tokens (with their tokenizer)."""
    learned: bool = False
    """Whether the router was trained."""
    seeds: Annotated[int, Meta(ge=1)] = 1
    """Seeds that the scores are averaged over; of a router that learned from one, intervals know documents alone."""
    seed_losses: dict[str, list[Cost]] = {}
    """Loss of each seed, by hold-out."""
    scores: Scores = {}
    """On full hold-outs; empty where the router searches and is scored on the subset alone."""
    subset: Scores = {}
    """On the subset that searches are scored on."""
    collapsed: dict[str, list[Words]] = {}
    """By hold-out, layers at which a router that learned never or always uses a module."""
    search: Label | UnsetType = UNSET
    """How its routes were searched for, where not all that there are were compared (`local`, `beam`); else left out."""
    knowledge: dict[str, Knowledge] | UnsetType = UNSET
    """By hold-out, what the router says that it knows of the next token, on the subset; left out where it is silent."""
    failed: str | None = None
    """Why there are no scores."""
    beside: dict[str, Beside] = {}
    """By hold-out, what a comparison says of it; empty outside one."""

    @property
    def shown(self) -> Scores:
        """The scores on the most tokens there are."""
        return self.scores or self.subset

    @property
    def bound(self) -> bool:
        """Whether the router consulted the labels it was scored on, on full hold-outs or on their subset."""
        return any(score.labels_consulted for part in PARTS for score in getattr(self, part).values())


def describe_search(search: Mapping[str, str | UnsetType]) -> str:
    """What captions say of how rows were searched for; nothing where all routes were compared.

    >>> describe_search({"fixed_best": "local", "random": UNSET, "oracle": "local"})
    '; search: local (fixed_best, oracle)'
    """
    methods: dict[str, list[str]] = {}
    for name, method in search.items():
        if method:
            methods.setdefault(str(method), []).append(name)
    said = ", ".join(f"{method} ({', '.join(names)})" for method, names in methods.items())
    return f"; search: {said}" if said else ""


def average_rows(rows: list[Row]) -> Row:
    """One row from those of several seeds."""
    parts: dict[str, Any] = {}
    for part in PARTS:
        found = [getattr(row, part) for row in rows]
        parts[part] = {name: average_scores([scores[name] for scores in found]) for name in found[0]}
    losses = {holdout: [row.shown[holdout].loss for row in rows] for holdout in rows[0].shown}
    collapses = {
        holdout: sorted({collapse for row in rows for collapse in row.collapsed[holdout]})
        for holdout in rows[0].collapsed
    }
    if rows[0].knowledge:
        known = [row.knowledge for row in rows if row.knowledge]
        parts["knowledge"] = {name: average_knowledge([found[name] for found in known]) for name in known[0]}
    return structs.replace(rows[0], seeds=len(rows), seed_losses=losses, collapsed=collapses, **parts)


def pair_scores(row: Row, other: Row, holdout: str) -> tuple[Score, Score]:
    """Both scores on the full hold-out where both rows have them, else on its subset."""
    both = (row.scores, other.scores) if row.scores and other.scores else (row.subset, other.subset)
    return both[0][holdout], both[1][holdout]


def subtract(row: Row, other: Row, holdout: str) -> Estimate:
    """How much more a router loses than another on the same tokens, nats per token, paired."""
    return difference(*pair_scores(row, other, holdout))


def choose_baseline(losses: Mapping[str, float], first: str, is_own: bool) -> str:
    """The row that gap closed is measured from: `first`, the best fixed pattern, on a hold-out that is its own.

    On one without a calibration set of its name, the pattern was chosen on other domains, and may be worse than random
    routes: there it is the row of the lowest loss.

    >>> choose_baseline({"fixed_best": 4.2, "random": 4.1}, "fixed_best", is_own=False)
    'random'
    """
    return first if is_own else min(losses, key=lambda name: (losses[name], name != first))


def close_gap(row: Row, fixed: Row, oracle: Row, holdout: str) -> Estimate:
    """How much of the gap between the best fixed pattern and the oracle a router closes, all three on the subset."""
    return estimate_gap_closed(*(each.subset[holdout].sequences for each in (row, fixed, oracle)))
