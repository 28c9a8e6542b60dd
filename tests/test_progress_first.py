"""Signs of life: a command's first line, and what a process says to the one that waits for it."""

import os
import subprocess
import sys
import time

import pytest

from duo.progress import start, track, watching
from duo.progress.passed import FILE, Passing, read_share
from duo.progress.start import announce, speak


@pytest.fixture(autouse=True)
def _only_once():
    """What a test announces is not said again in the next one."""
    yield
    speak()


@pytest.mark.parametrize(
    ("typed", "out"),
    [
        ("duo.run recipe=tiny cache=none", True),
        ("duo.leaderboard verify 1a2b leaderboard.store=sftp://me:secret@host/b", True),
        ("duo.leaderboard submit outputs/run", True),
        ("duo.run --help", False),
        ("duo.run recipe=tiny --help", False),
        ("duo.plugins new mine", False),
        ("duo.cache where", False),
        ("pytest recipe=tiny", False),
    ],
)
def test_a_command_that_works_says_so_first_and_one_that_answers_does_not(typed, out, capsys):
    announce(["python", "-X", "dev", "-m", *typed.split()])
    said = capsys.readouterr()
    assert bool(said.out) is out
    assert "secret" not in said.out
    assert not said.err


@pytest.mark.parametrize(
    "typed",
    [
        "duo.generate recipe=tiny prompt=a",
        "duo.compare outputs/a outputs/b --csv",
        "duo.leaderboard show --format json",
        "duo.plugins check mine",
        "duo.plan recipe=tiny --json",
    ],
)
def test_text_that_is_written_has_the_standard_output_to_itself(typed, capsys):
    announce(["python", "-m", *typed.split()])
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith(f"start  {typed.split()[0]}")


def test_the_first_line_is_said_again_until_something_else_is_said(monkeypatch, capsys):
    monkeypatch.setattr(start, "AGAIN", 0.01)
    announce(["python", "-m", "duo.run", "recipe=tiny"])
    end, said = time.monotonic() + 20, ""
    while "seconds so far" not in said:
        assert time.monotonic() < end
        time.sleep(0.01)
        said += capsys.readouterr().out
    speak()
    time.sleep(0.1)
    capsys.readouterr()
    time.sleep(0.1)
    assert not capsys.readouterr().out


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
