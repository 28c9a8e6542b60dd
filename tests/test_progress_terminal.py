"""Signs of life on terminals: one line, which fits, and goes with the work."""

import contextlib
import fcntl
import io
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading

import pytest
from rich.console import Console
from toy_screens import Clock, Terminal, console_of, drawn, screen_of

from duo.progress import at, count, track, watching, work
from duo.progress.shown import Line, Lines, tell_work, watcher_of
from duo.report.messages import messages


def test_a_terminal_has_one_line_which_goes_with_the_work():
    clock, seen = Clock(), []

    def work(stream):
        with at("evaluating a_router_of_quite_a_long_name, seed 2, on the subset of code"):
            for _ in track(clock.passing(range(30), 1.0), "batch", 30):
                seen.append([row for row in screen_of(stream.getvalue()) if row])

    written = drawn(clock, work)
    assert not seen[0]
    assert all(len(rows) == 1 and len(rows[0]) < 80 for rows in seen[3:])
    assert "50%, 0:15 left  batch 16 of 30" in seen[15][0]
    assert not any(screen_of(written))
    assert written.rstrip().endswith("\x1b[2K")
    assert written.count("\x1b[?25l") <= written.count("\x1b[?25h")  # the cursor is there again


def test_behind_counted_work_no_line_stays_that_says_what_is_over():
    clock, rows = Clock(), []

    def work(stream):
        with at("row one"):
            for _ in range(2):
                [*track(clock.passing(range(30), 1.0), "batch", 30)]
                rows.append([row for row in screen_of(stream.getvalue()) if row])
            for _ in track(clock.passing(range(30), 0.01), "other", 30):
                rows.append([row for row in screen_of(stream.getvalue()) if row])

    drawn(clock, work)
    assert not any(rows)


def test_a_terminal_is_drawn_twice_a_second_at_most():
    clock = Clock()
    written = drawn(clock, lambda stream: [*track(clock.passing(range(1000), 0.01), "step", 1000)])
    assert 10 <= written.count(" of 1,000") <= 20 + 1  # and once more at its end


@pytest.mark.parametrize("width", [20, 40, 80, 165])
def test_a_terminals_line_fits_it(width):
    clock, stream = Clock(), Terminal()
    with watching(Line(console_of(stream, width), clock)), at("evaluating softmax_budget, seed 0"):
        [*track(clock.passing(range(9), 4000.0), "batch", 9)]
    rows = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()))
    assert any(rows)
    assert all(len(row) < width for row in rows)


def test_an_exception_leaves_no_line_on_the_terminal():
    clock = Clock()

    def work(stream):
        for step in track(clock.passing(range(30), 1.0), "step", 30):
            if step == 20:
                raise KeyboardInterrupt

    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), watching(Line(console_of(stream), clock)):
        work(stream)
    assert not any(screen_of(stream.getvalue()))


def test_messages_stand_above_the_line():
    stream = Terminal()
    console = console_of(stream)
    with messages(console), at("row one"), count("step", 4) as part:
        part.step()
        console.print("below")  # before there is a line
        logging.getLogger("duo.stages").info("stage 3  calibrating all_small")
    assert [row for row in screen_of(stream.getvalue()) if row] == ["below", "stage 3  calibrating all_small"]


@pytest.mark.long
@pytest.mark.parametrize("shown", [True, False])
def test_a_run_on_a_terminal_leaves_its_messages_and_tables_and_no_line_of_progress(small, tmp_path, shown):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    settings = [f"output={tmp_path}/run", f"cache={tmp_path}/cache", f"trainer.enable_progress_bar={shown}".lower()]
    run = subprocess.Popen(
        [sys.executable, "-m", "duo.run", *small, "stage1.steps=100", *settings], stdout=theirs, stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # the terminal ends with its last writer
        while part := os.read(ours, 1 << 16):
            written += part
    os.close(ours)
    assert run.wait() == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", written.decode())
    assert ("left  " in text) is shown
    rows = screen_of(text)
    assert not any("left  " in row or "so far  " in row for row in rows)
    assert rows[0].startswith("start  duo.run")
    assert any(row == "stage 3  calibrating all_small" for row in rows)


@pytest.mark.parametrize(("stream", "kind"), [(Terminal(), Line), (io.StringIO(), Lines)])
def test_a_terminal_has_a_line_and_a_file_has_lines(stream, kind):
    assert isinstance(watcher_of(console_of(stream)), kind)


def test_colours_that_are_forced_into_a_file_bring_no_line_that_changes():
    forced = Console(file=io.StringIO(), force_terminal=True)
    assert isinstance(watcher_of(forced), Lines)


@pytest.mark.parametrize(("wanted", "quiet"), [(False, False), (True, True)])
def test_who_wants_no_progress_and_who_is_not_to_speak_show_none(wanted, quiet, monkeypatch):
    clock, stream = Clock(), io.StringIO()
    monkeypatch.setattr("duo.progress.shown.time.monotonic", clock)
    console = Console(file=stream, quiet=quiet)
    with messages(console, progress=wanted):
        [*track(clock.passing(range(90), 1.0), "step", 90)]
    assert not stream.getvalue()


def test_no_thread_lives_by_the_display():
    clock, before, seen = Clock(), threading.active_count(), []
    drawn(clock, lambda _: [seen.append(threading.active_count()) for _ in track(clock.passing(range(9), 1.0), "step")])
    assert {*seen} == {before}


def test_where_a_line_has_no_room_for_all_it_leaves_out_what_is_outermost():
    with watching(Lines(Clock())), at("row 3 of 13"), at("calibrating all_small"), count("step", 1_000) as part:
        part.go_on(120, "loss 3.210")
        assert tell_work(work._parts) == "row 3 of 13, calibrating all_small, step 120 of 1,000, loss 3.210"
        assert tell_work(work._parts, 40) == "step 120 of 1,000, loss 3.210"
