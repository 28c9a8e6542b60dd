"""Claims before anything is measured, and how they are judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from duo.evaluation.verdict import Claim, Part, corrected_level, count_parts
from duo.report.paper.evidence import Evidence, Missing

Measure = Callable[[Evidence, str], list[Part]]
"""The numbers of a claim on a hold-out; raises Missing."""


class Statement(NamedTuple):
    """What is claimed, where the paper says so, and what measures it."""

    name: str
    says: str
    place: str
    measure: Measure


STATEMENTS: list[Statement] = []
"""All claims, in the order in which they are told."""


def claim(name: str, says: str, place: str) -> Callable[[Measure], Measure]:
    """Makes what measures a claim one of the report's."""

    def register(measure: Measure) -> Measure:
        STATEMENTS.append(Statement(name, says, place, measure))
        return measure

    return register


def judge(evidence: Evidence) -> list[Claim]:
    """All claims on all hold-outs, each interval widened for the number of tests in all of them."""
    tests = count_parts([*_measure(evidence, 1)])  # which does not depend on the level
    return [*_measure(replace(evidence, level=corrected_level(tests)), tests)]


def _measure(evidence: Evidence, tests: int) -> Iterator[Claim]:
    for said in STATEMENTS:
        for holdout in evidence.holdouts:
            parts, why = [], ""
            try:
                parts = said.measure(evidence, holdout)
            except (Missing, LookupError) as error:  # a row without this hold-out, a shorter trace
                why = str(error)
            yield Claim(said.name, said.says, said.place, holdout, parts, tests, why)
