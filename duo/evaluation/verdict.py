"""Claims and their verdicts, computed from intervals and never typed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct, structs

from duo.evaluation.intervals import Estimate

Verdict = Literal["holds", "does not hold", "undecided"]
ERROR = 0.05
"""Of all tests of a report together: how often one of them is to decide wrongly."""
SEEDS = 5
"""Trainings that a claim about a learned router needs: of fewer, nobody knows how much those of other seeds differ."""


class Part(Struct, frozen=True):
    """One number of a claim, and where the claim says that it lies."""

    says: str
    """What the number is."""
    found: Estimate
    """The number, with its interval at the level that the report's tests are corrected to."""
    low: float = -math.inf
    high: float = math.inf
    """The claim says that the truth lies between these."""
    why: str = ""
    """Why nothing is decided, whatever the interval says; empty: the interval decides."""

    @property
    def verdict(self) -> Verdict:
        """Whether the whole interval lies where the claim says, or none of it does; else nothing is decided.

        >>> Part("a", Estimate(1.0, (0.5, 1.5)), low=0).verdict, Part("b", Estimate(-1.0, (-2.0, -0.5)), low=0).verdict
        ('holds', 'does not hold')
        >>> Part("c", Estimate(1.0, (-0.5, 2.5)), low=0).verdict, Part("d", Estimate(1.0, None), low=0).verdict
        ('undecided', 'undecided')
        """
        if self.why or self.found.interval is None or not all(map(math.isfinite, self.found.interval)):
            return "undecided"
        low, high = self.found.interval
        if self.low < low and high < self.high:
            return "holds"
        return "does not hold" if high < self.low or low > self.high else "undecided"


class Claim(Struct, frozen=True):
    """A claim on one hold-out, with what was measured of it."""

    name: str
    says: str
    """The claim, in our words."""
    place: str
    """Where the paper makes it; `duo`: it is ours."""
    holdout: str
    parts: list[Part]
    """What has to be so; none: it could not be measured."""
    tests: int
    """How many numbers the report tests, for which every interval is widened."""
    why: str = ""
    """Why nothing could be measured."""

    @property
    def verdict(self) -> Verdict:
        """All parts hold; or some part does not; else undecided."""
        found = {part.verdict for part in self.parts}
        if "does not hold" in found:
            return "does not hold"
        return "holds" if found == {"holds"} else "undecided"


def corrected_level(tests: int) -> float:
    """The level of each interval, so that all of so many hold the truth together as often as one alone should.

    >>> round(corrected_level(50), 4)
    0.999
    """
    return 1 - ERROR / max(tests, 1)  # Bonferroni: whatever the tests have to do with one another


def below(says: str, found: Estimate, bound: float = 0.0) -> Part:
    """The claim that a number is below a bound."""
    return Part(says, found, high=bound)


def above(says: str, found: Estimate, bound: float = 0.0) -> Part:
    """The claim that a number is above a bound."""
    return Part(says, found, low=bound)


def within(says: str, found: Estimate, margin: float) -> Part:
    """The claim that a number is 0, give or take a margin."""
    return Part(says, found, -margin, margin)


def of_seeds(parts: Sequence[Part], seeds: int) -> list[Part]:
    """Parts about a router that learned: not decided by fewer than SEEDS trainings, however alike documents are.

    >>> [part.why for part in of_seeds([Part("a", Estimate(1.0, (0.5, 1.5)))], 2)]
    ['trained from 2 of the 5 seeds that decide']
    """
    why = "" if seeds >= SEEDS else f"trained from {seeds} of the {SEEDS} seeds that decide"
    return [structs.replace(part, why=why) for part in parts]


def count_parts(claims: Sequence[Claim]) -> int:
    """Numbers that are tested in all."""
    return sum(len(claim.parts) for claim in claims)
