"""What the leaderboard shows: tracks of lines, as plain values that the table, the files and the page all print."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from duo.evaluation.intervals import Estimate
from duo.evaluation.score import Score

SUBSET = ", subset of searches"
"""Behind the name of a hold-out: the part of it that searches are scored on."""
STATUS = ("claimed", "re-executed", "retrained")
"""What has been done to a line's entries since they were submitted; the last one is worth most."""


class Standing(Struct, frozen=True):
    """A line on one part: a hold-out, or the subset of it that searches are scored on."""

    score: Score
    """Averaged over the line's seeds; its seconds are of whatever machine the entry was made on."""
    above: Estimate
    """Loss minus that of the deployable line above, on the same tokens; none for the first and for other kinds."""
    significant: bool
    """Whether that difference is clear of 0."""
    minus_fixed: Estimate
    """Loss minus that of the best fixed pattern on the same tokens; none where that is missing."""
    gap_closed: Estimate
    """On a subset, of the gap between the best fixed pattern and the oracle; none where either is missing."""
    heat: list[list[float]]
    """Share of big, by layer (outer) and by equal parts of the positions (inner)."""


class Line(Struct, frozen=True):
    """Entries that differ in nothing but their seed."""

    name: str
    """What the submitter calls it."""
    kind: str
    """`deployable`; `bound` (it consulted the labels); `reference` (all small or all big, outside the budget rule)."""
    rank: int | None
    """Place among the deployable lines of full hold-outs, by their mean loss, claims last; none for the others."""
    router: str
    """Name of the router."""
    options: dict[str, Any]
    """Its options."""
    package: str
    """The package that registers the router, and its version."""
    status: str
    """One of STATUS: what all of its entries have reached."""
    seeds: list[int]
    """The seeds of its entries."""
    entries: list[str]
    """Digests of its entries."""
    note: str
    """The submitter's own words."""
    recipe: str
    """The recipe of its first entry, as YAML."""
    provenance: dict[str, Any]
    """Commit, versions and device of its first entry, as claimed."""
    parts: dict[str, Standing]
    """By part, where the line is scored on it; bounds are on subsets alone."""


class Track(Struct, frozen=True):
    """Lines that may be compared: of one backbone, the same tokens and one budget."""

    digest: str
    """Identity of the track."""
    title: str
    """Backbone and budget in words."""
    backbone: dict[str, Any]
    """Artefact digest, name, layers, width, parameters and training tokens of the backbone."""
    budget: dict[str, float]
    """Modules per token."""
    parts: list[str]
    """Names of the hold-outs, each followed by its subset of searches: lines of one part stand on the same tokens."""
    baselines: dict[str, str]
    """First entries of the lines between which gaps are measured, by name of their routers, where there are such."""
    lines: list[Line]
    """Deployable lines by rank, then references, then bounds."""


class Board(Struct, frozen=True):
    """All that is shown."""

    tracks: list[Track]
    """By title."""
    left_out: list[str]
    """Entries that are not shown and marks that do not count, and why, a sentence each: whose digest, a colon, why."""
    command: str
    """What runs an entry's recipe from the beginning; ENTRY stands for its digest."""
