"""Signs of life: what is counted, and its lines in files, by a clock of the tests' own."""

import logging

import pytest
from toy_screens import Clock, logged

from duo.progress import at, count, track, watching
from duo.progress.shown import Lines


@pytest.mark.parametrize("watched", [True, False])
def test_a_loop_gets_exactly_the_items(watched):
    with watching(Lines(Clock()) if watched else None):
        assert [*track([3, 1, 2], "thing")] == [3, 1, 2]
        assert [*track(iter("abc"), "letter", total=9)] == ["a", "b", "c"]
        assert [*track([], "nothing")] == []


def test_a_file_gets_a_line_every_ten_seconds_at_most_and_none_before(caplog):
    clock = Clock()
    times = []

    def work():
        for _ in track(clock.passing(range(100), 1.0), "step", 100):
            times.append((clock(), len(caplog.records)))

    lines = logged(clock, work, caplog)
    first = next(seconds for seconds, said in times if said)
    assert first - times[0][0] >= 10
    assert 8 <= len(lines) <= 10
    assert not any("\r" in line or "\x1b" in line for line in lines)
    assert lines[4] == "50%, 0:50 left  step 51 of 100"


def test_what_is_done_within_ten_seconds_leaves_no_line(caplog):
    clock = Clock()
    assert logged(clock, lambda: [*track(clock.passing(range(9), 1.0), "step", 9)], caplog) == []


def test_where_nobody_watches_nothing_is_said(caplog):
    clock = Clock()
    with caplog.at_level(logging.INFO, "duo"):
        assert len([*track(clock.passing(range(90), 1.0), "step", 90)]) == 90
    assert not caplog.records


def test_a_line_says_within_what_the_work_is_and_counts_inner_work_as_part_of_its_item(caplog):
    clock = Clock()

    def work():
        with at("calibrating all_small"):
            for _ in track(range(2), "round"):
                for _ in track(clock.passing(range(10), 3.0), "batch", 10):
                    pass

    assert logged(clock, work, caplog) == [
        "20%, 0:48 left  calibrating all_small, round 1 of 2, batch 5 of 10",
        "40%, 0:36 left  calibrating all_small, round 1 of 2, batch 9 of 10",
        "60%, 0:24 left  calibrating all_small, round 2 of 2, batch 3 of 10",
        "80%, 0:12 left  calibrating all_small, round 2 of 2, batch 7 of 10",
        "100%, 0:00 left  calibrating all_small, round 2 of 2, batch 10 of 10",
    ]


def test_what_may_end_early_says_at_most_and_what_has_no_end_says_how_long_it_takes(caplog):
    clock = Clock()
    early = lambda: [*track(clock.passing(range(4), 5.0), "round", 4, at_most=True)]  # noqa: E731
    assert logged(clock, early, caplog)[0] == "50%, at most 0:10 left  round 3 of 4"
    endless = lambda: [*track(clock.passing(range(4), 5.0), "document")]  # noqa: E731
    assert logged(clock, endless, caplog)[0] == "0:10 so far  document 3"


def test_time_left_is_of_what_is_left_where_a_part_was_done_before(caplog):
    clock = Clock()

    def work():
        with at("stage 1"), count("step", 240) as part:
            part.begin(60)
            for step in clock.passing(range(61, 90), 1.0):
                part.go_on(step, "loss 3.210")

    assert logged(clock, work, caplog)[0] == "29%, 2:50 left  stage 1, step 70 of 240, loss 3.210"


def test_work_that_an_exception_ends_is_over(caplog):
    clock = Clock()

    def work():
        held = []
        with at("row one"):
            try:
                for _ in track(range(5), "step"):
                    raise ValueError("broken")
            except ValueError as error:
                held.append(error)  # and with it the frames, and the loop in them
        for _ in track(clock.passing(range(3), 10.0), "other", 3):
            pass

    assert all(line.rpartition("  ")[2].startswith("other") for line in logged(clock, work, caplog))


def test_a_loop_that_is_left_is_over(caplog):
    clock = Clock()

    def work():
        for _ in track(range(5), "step"):
            break
        [*track(clock.passing(range(3), 10.0), "other", 3)]

    assert all(line.rpartition("  ")[2].startswith("other") for line in logged(clock, work, caplog))
