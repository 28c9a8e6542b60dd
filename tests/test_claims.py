"""Verdicts follow from data: planted for and against every claim, and too few to tell."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from plants import PLANTS
from toy_papers import SHARES, world

from duo.evaluation.verdict import Claim, corrected_level, count_parts
from duo.report.paper import STATEMENTS, Evidence, Missing, judge
from duo.report.paper.shares import agreement

STATED = {said.name: said for said in STATEMENTS}
OF_ROUTERS = {
    "router_near_fixed", "oracle_below_router", "more_big_helps", "router_late_early", "router_later_than_oracle",
    "router_small_at_end", "router_exits_early", "little_agreement", "opt_late_early", "opt_skips_late", "ladder",
}  # fmt: skip


@pytest.fixture(scope="module")
def true():
    """Verdicts where every claim is so."""
    return {claim.name: claim for claim in judge(world().evidence())}


@pytest.fixture(scope="module")
def level(true):
    """Of each interval of a report."""
    return corrected_level(count_parts([*true.values()]))


def measured(name, evidence, level):
    """One claim of some evidence, as `judge` has it."""
    parts = STATED[name].measure(replace(evidence, level=level), evidence.holdouts[0])
    return Claim(name, "", "", "", parts, 1)


def test_every_claim_holds_where_it_is_so(true):
    wrong = {name: claim.parts for name, claim in true.items() if claim.verdict != "holds"}
    assert not wrong


@pytest.mark.parametrize("plant", PLANTS, ids=[plant.name for plant in PLANTS])
def test_one_part_that_is_not_so_makes_a_claim_not_hold_and_moves_no_other_part(plant, level):
    claim = measured(plant.claim, world(plant.change, **plant.about).evidence(), level)
    verdicts = [part.verdict for part in claim.parts]
    expected = ["does not hold" if part == plant.part else "holds" for part in range(len(verdicts))]
    assert (verdicts, claim.verdict) == (expected, "does not hold"), claim.parts[plant.part]


def test_every_part_of_every_claim_has_a_world_beyond_each_of_its_bounds(true):
    """A claim or part that is new needs a plant."""
    assert {*true} == {*STATED}
    bounds = {
        (name, number): sum(map(math.isfinite, (part.low, part.high)))
        for name, claim in true.items()
        for number, part in enumerate(claim.parts)
    }
    planted = Counter((plant.claim, plant.part) for plant in PLANTS)
    assert planted == bounds


@pytest.mark.parametrize("name", STATED)
def test_nothing_is_decided_by_a_single_document(name, level):
    claim = measured(name, world(documents=1).evidence(), level)
    # times are not measured by document
    assert claim.verdict == ("holds" if name == "time" else "undecided")


def test_few_documents_decide_less_than_many(true):
    few = {claim.name: claim for claim in judge(world(documents=3).evidence())}
    count = lambda claims: sum(claim.verdict == "holds" for claim in claims.values())  # noqa: E731
    assert count(few) < count(true)
    assert all(claim.verdict != "does not hold" for claim in few.values())


@pytest.mark.parametrize("name", STATED)
def test_a_claim_about_a_learned_router_is_not_decided_by_fewer_than_five_seeds(name, level):
    claim = measured(name, world(seeds=4).evidence(), level)
    of_router = [part for part in claim.parts if part.why]
    assert bool(of_router) == (name in OF_ROUTERS)
    assert claim.verdict == ("undecided" if of_router else "holds")
    assert {part.why for part in of_router} <= {"trained from 4 of the 5 seeds that decide"}


@pytest.mark.parametrize(
    "plant", [plant for plant in PLANTS if plant.claim in OF_ROUTERS], ids=lambda plant: plant.name
)
def test_nor_is_it_refuted_by_them(plant, level):
    claim = measured(plant.claim, world(plant.change, seeds=4).evidence(), level)
    # but for a part that is about fixed patterns
    assert claim.verdict == ("does not hold" if plant.name == "more_big_helps 0" else "undecided")


def test_routers_that_differ_by_seed_leave_open_what_each_of_them_would_decide(level):
    evidence = world().evidence()
    traces = evidence.seeds("router at half", "code")
    flipped = [trace._replace(route_BTL=trace.route_BTL[..., ::-1]) for trace in traces]
    for chosen in (0, 1):
        alone = [flipped[0] if chosen else traces[0]] * 5
        evidence.traces["router at half"]["code"] = alone
        assert measured("router_late_early", evidence, level).parts[2].verdict == (
            "does not hold" if chosen else "holds"
        )
    evidence.traces["router at half"]["code"] = [*flipped[:1], *traces[1:]]
    assert measured("router_late_early", evidence, level).parts[2].verdict == "undecided"


def test_twins_are_compared_seed_by_seed():
    """Seeds differ by 0.3 nats, the twins of a seed by 0.01: unpaired, nothing would be known."""
    evidence = world().evidence()
    ours, twin = evidence.matched("dense", "duo_100", "dense_big")
    paired, alone = evidence.sum_paired((ours, twin), (1, -1), "code"), evidence.minus(ours, twin, "code")
    assert paired.value == pytest.approx(alone.value)
    widths = [high - low for low, high in (paired.interval, alone.interval)]
    assert widths[0] < widths[1] / 10
    del evidence.comparisons["dense"].groups["backbone.seed=0"]["dense_big"]
    ours, twin = evidence.matched("dense", "duo_100", "dense_big")
    assert (ours.seeds, twin.seeds) == (4, 4)  # a seed that lacks one of them tells nothing of the other


@pytest.mark.parametrize("name", ["fewer_routes", "mirrored_budgets"])
def test_what_all_routes_lose_alike_is_no_choice_among_them(name, level):
    found = measured(name, world().evidence(), level)
    moved = world().evidence()
    candidates = moved.candidates[moved.holdouts[0]]
    candidates.mean_BG[:, 1] += 5.0
    candidates.best_BG[:, 1] += 5.0
    again = measured(name, moved, level)
    assert [part.found.value for part in again.parts] == pytest.approx([part.found.value for part in found.parts])


def test_claims_do_not_depend_on_what_holdouts_are_called(true):
    other = {claim.name: claim for claim in judge(world(holdout="my files").evidence())}
    assert {name: claim.verdict for name, claim in other.items()} == {
        name: claim.verdict for name, claim in true.items()
    }
    assert {claim.holdout for claim in other.values()} == {"my files"}


def test_line_starts_are_asked_of_text_in_lines_alone():
    evidence = world().evidence()
    evidence.words["code"] = {"line_start_BT": evidence.words["code"]["line_start_BT"] & (np.arange(40) < 8)[:, None]}
    with pytest.raises(Missing, match=r"not in lines: 2\.5%"):
        measured("line_starts", evidence, 0.95)


def test_of_a_gap_that_may_be_none_nobody_is_said_to_close_a_part():
    no_gap = world(lambda world: world.ladder.update(fixed_best=4.2))
    assert measured("ladder", no_gap.evidence(), 0.95).verdict == "undecided"


def test_the_router_is_followed_through_whole_sequences_though_the_oracle_saw_their_beginnings(level):
    evidence = world().evidence()
    short = {f"oracle at {budget}" for budget in SHARES}
    for name in short:
        evidence.traces[name]["code"] = [trace.at(slice(12)) for trace in evidence.traces[name]["code"]]
    assert measured("little_agreement", evidence, level).verdict == "holds"
    assert measured("router_late_early", evidence, level).verdict == "holds"
    router, everything = evidence.trace("router at few", "code"), np.ones(40, dtype=bool)
    assert agreement(router, everything, oracle=router.at(slice(12))) == 1
    shuffled = evidence.trace("oracle at few", "code")
    evidence.traces["oracle at few"]["code"] = [shuffled._replace(sequence_B=shuffled.sequence_B + 1)]
    with pytest.raises(Missing, match="different sequences"):
        measured("little_agreement", evidence, level)


def test_what_was_not_measured_is_undecided_and_says_why():
    claims = judge(Evidence(12, traces=world().evidence().traces))
    missing = [claim for claim in claims if not claim.parts]
    assert missing
    for claim in missing:
        assert (claim.verdict, bool(claim.why)) == ("undecided", True)


def test_more_tests_widen_every_interval(true):
    alone = world().evidence()
    assert {claim.tests for claim in true.values()} == {sum(len(claim.parts) for claim in true.values())}
    for said in STATEMENTS:
        for part, corrected in zip(said.measure(alone, "code"), true[said.name].parts, strict=True):
            (low, high), (lower, higher) = part.found.interval, corrected.found.interval
            assert part.found.value == pytest.approx(corrected.found.value)
            assert higher - lower > high - low or high == low
