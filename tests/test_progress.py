"""Signs of life: in files and on terminals, with a clock and streams of the tests' own."""

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

from duo.progress import at, count, track, watching, work
from duo.progress.passed import FILE, Passing, read_share
from duo.progress.shown import Line, Lines, tell_work, watcher_of
from duo.progress.start import announce
from duo.report.messages import messages


class Clock:
    """Time that goes by where the tests say so."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds

    def passing(self, items, seconds):
        for item in items:
            self.seconds += seconds
            yield item


class Terminal(io.StringIO):
    def isatty(self):
        return True


def console_of(stream, width=80):
    return Console(
        file=stream, width=width, height=24, emoji=False, highlight=False, markup=False, soft_wrap=True,
        color_system=None, _environ={"TERM": "xterm"},
    )  # fmt: skip


def screen_of(written):
    """What stands on the rows of a terminal after all that was written, by the few controls that are used."""
    rows, at = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            at += 1
            rows += [""] * (at == len(rows))
            rows[at] = rows[at] if at < len(rows) - 1 else ""
        elif part == "\x1b[2K":
            rows[at] = ""
        elif part.endswith("A") and part.startswith("\x1b["):
            at -= int(part[2:-1])
        elif not part.startswith("\x1b") and part != "\r":
            rows[at] = part
    return rows


def logged(clock, work, caplog):
    """The lines that work leaves in a file."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "duo"), watching(Lines(clock)):
        work()
    return [record.getMessage() for record in caplog.records]


def drawn(clock, work):
    """All that work writes on a terminal of 80 columns."""
    stream = Terminal()
    with watching(Line(console_of(stream), clock)):
        work(stream)
    return stream.getvalue()


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


@pytest.mark.parametrize(
    ("typed", "out"),
    [
        ("duo.run recipe=tiny cache=none", True),
        ("duo.leaderboard verify 1a2b leaderboard.store=sftp://me:secret@host/b", True),
        ("duo.leaderboard submit outputs/run", True),
        ("duo.leaderboard show --format json", False),
        ("duo.run --help", False),
        ("duo.run recipe=tiny --help", False),
        ("duo.plugins list", False),
        ("pytest recipe=tiny", False),
    ],
)
def test_a_command_that_works_says_so_first_and_one_that_answers_does_not(typed, out, capsys):
    announce(["python", "-X", "dev", "-m", *typed.split()])
    said = capsys.readouterr()
    assert bool(said.out) is out
    assert "secret" not in said.out
    assert not said.err


def test_text_that_is_written_has_the_standard_output_to_itself(capsys):
    announce(["python", "-m", "duo.generate", "recipe=tiny", "prompt=a"])
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith("start  duo.generate")


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_of_several_processes_one_says_the_first_line(name, monkeypatch, capsys):
    monkeypatch.setenv(name, "1")
    announce(["python", "-m", "duo.run", "recipe=tiny"])
    assert not capsys.readouterr().out


def test_the_first_line_needs_no_heavy_import():
    code = (
        "import sys; sys.argv = ['-m']; sys.orig_argv = ['python', '-m', 'duo.run', 'recipe=tiny']\n"
        "class Out:\n"
        "    def write(self, text):\n"
        "        heavy = {'torch', 'lightning', 'numpy', 'rich'} & {*sys.modules}\n"
        "        sys.__stderr__.write(text + str(sorted(heavy)))\n"
        "        import os; sys.__stderr__.flush(); os._exit(0)\n"
        "    def flush(self): pass\n"
        "sys.stdout = Out()\n"
        "import duo\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.startswith("start  duo.run")
    assert done.stderr.endswith("[]")


def test_a_process_says_how_far_it_is_to_the_one_that_waits(tmp_path):
    assert read_share(tmp_path) == 0
    with watching(Passing(tmp_path)):
        for _ in track(range(4), "part"):
            pass
    assert 0 <= read_share(tmp_path) <= 1
    (tmp_path / FILE).write_text("0.2500")
    assert read_share(tmp_path) == 0.25


@pytest.mark.parametrize("said", ["nan", "-1", "7", "[]", "", "9" * 999, "\x1b[2J"])
def test_nonsense_that_a_process_says_is_no_progress(tmp_path, said):
    (tmp_path / FILE).write_text(said)
    assert read_share(tmp_path) == 0


def test_what_a_process_leaves_in_place_of_its_progress_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / FILE)
    assert read_share(tmp_path) == 0
    (tmp_path / FILE).unlink()
    (tmp_path / "secret").write_text("0.5")
    (tmp_path / FILE).symlink_to(tmp_path / "secret")
    assert read_share(tmp_path) == 0
