"""Signs of life of work that tells nothing for a while."""

import logging
import os
import threading
import time

import pytest
from toy_screens import Clock, Terminal, console_of, screen_of

from duo.progress import at, beat, count, watching
from duo.progress.beat import beating
from duo.progress.shown import Line, Lines
from duo.report.messages import messages

PATIENCE = 20.0  # seconds, on the busiest of machines


def wait_for(what):
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_single_long_operation_is_told_of_every_ten_seconds(caplog):
    clock = Clock()
    with caplog.at_level(logging.INFO, "duo"), watching(Lines(clock)), beating(0.005), at("training the tokenizer"):
        for lines in (1, 2, 3):
            clock.seconds += 11
            wait_for(lambda lines=lines: len(caplog.records) >= lines)
    assert [record.getMessage() for record in caplog.records] == [
        f"0:{seconds} so far  training the tokenizer" for seconds in (11, 22, 33)
    ]


def test_on_a_terminal_its_time_goes_on_and_its_line_goes_with_it():
    clock, stream = Clock(), Terminal()
    with watching(Line(console_of(stream), clock)), beating(0.005):
        with count("in a process without labels", 1):
            clock.seconds += 7
            wait_for(lambda: "0:07 so far" in stream.getvalue())
        left = screen_of(stream.getvalue())
        time.sleep(0.05)
        assert screen_of(stream.getvalue()) == left
    assert not "".join(left).strip()


def test_where_nothing_is_done_nothing_is_told(caplog):
    clock = Clock()
    with caplog.at_level(logging.INFO, "duo"), watching(Lines(clock)), beating(0.005):
        clock.seconds += 60
        time.sleep(0.05)
    assert not caplog.records


def test_a_command_tells_it_whatever_its_work_does(monkeypatch):
    clock, stream = Clock(), Terminal()
    monkeypatch.setattr(beat, "AGAIN", 0.005)
    monkeypatch.setattr("duo.progress.shown.time.monotonic", clock)
    with messages(console_of(stream)), at("loading"):
        clock.seconds += 3
        wait_for(lambda: "0:03 so far  loading" in stream.getvalue())


def test_with_the_work_its_thread_ends_and_a_failure_to_show_ends_neither():
    class Broken(Lines):
        looks = 0

        def look(self, parts):
            Broken.looks += 1
            raise OSError("the disk is full")

    before = threading.active_count()
    with watching(Broken()), beating(0.005), at("work"):
        wait_for(lambda: Broken.looks >= 3)
    assert threading.active_count() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_is_forked_while_work_is_shown_can_show_its_own():
    class Slow(Lines):
        def look(self, parts):
            time.sleep(0.002)

    with watching(Slow()), beating(0.0001), count("thing", 9) as part:
        for _ in range(20):
            if (child := os.fork()) == 0:
                part.step()
                os._exit(0)
            wait_for(lambda child=child: os.waitpid(child, os.WNOHANG)[0])
