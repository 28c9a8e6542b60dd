"""What a user or the machine causes is one line and an exit status."""

import errno
import os
import subprocess
import sys

import pytest
import torch

from duo.report.command import run_command


def fails_with(error):
    def work():
        raise error

    return run_command(work)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (ValueError("no\n  such thing"), "error: no such thing"),
        (FloatingPointError("nan"), "error: nan"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "'a/b': make room on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "error: [Errno 13] Permission denied: 'a/b'"),
        (MemoryError(), "error: out of memory (MemoryError)"),
        (torch.OutOfMemoryError("CUDA out of memory"), "error: out of memory (CUDA out of memory)"),
        (BrokenPipeError(), "error: the output was closed"),
    ],
)
def test_what_a_user_or_the_machine_causes_is_one_line(error, wanted, capsys):
    assert fails_with(error) == 1
    printed = capsys.readouterr().err
    assert wanted in printed
    assert printed.count("\n") == 1


def test_memory_that_torch_cannot_have_is_one_line(capsys):
    assert run_command(lambda: len(torch.empty(1 << 55))) == 1
    assert capsys.readouterr().err.startswith("error: out of memory")


def test_what_is_duos_own_mistake_shows_where():
    for error in (RuntimeError("shapes differ"), TypeError(), AssertionError(), KeyError()):
        with pytest.raises(type(error)):
            fails_with(error)


HELP = """
import sys
from duo.run import main
sys.exit(main(["--help"]))
"""
WORDS = """
import sys
from duo.report.command import run_command
sys.exit(run_command(lambda: print("a ± b → ☃") or 0))
"""


def shell(line, program, **environment):
    """The exit status and what is printed to the error stream."""
    done = subprocess.run(
        ["/bin/bash", "-c", line, sys.executable, program],
        capture_output=True,
        text=True,
        env={"PATH": ""} | environment,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the full disk is /dev/full")
def test_a_full_or_closed_output_is_no_traceback():
    status, _, error = shell('"$0" -c "$1" >/dev/full', HELP)
    assert status == 1
    assert error == "error: [Errno 28] No space left on device: make room on the disk; the same command goes on\n"
    assert shell('"$0" -c "$1" >&-', HELP) == (0, "", "")
    status, _, error = shell('"$0" -c "$1" | { read line; }; exit ${PIPESTATUS[0]}', HELP)
    assert (status, error) in [(1, "error: the output was closed: nobody reads it any more\n"), (0, "")]


@pytest.mark.long
def test_a_terminal_that_knows_few_characters_shows_the_others_as_escapes():
    status, printed, error = shell('"$0" -c "$1"', WORDS, PYTHONIOENCODING="ascii")
    assert (status, printed, error) == (0, "a \\xb1 b \\u2192 \\u2603\n", "")


END = """
import atexit, gc, sys, tempfile, threading, time
atexit.register(lambda: print(f"{gc.get_freeze_count() > 10_000} and behind", flush=True))
from duo.report.command import run_command
folder, left = tempfile.TemporaryDirectory(), open(sys.argv[1], "w")

class Cycle:
    def __init__(self):
        self.me = self
    def __del__(self):
        print("taken apart")

kept = [Cycle() for _ in range(3)]

def work():
    left.write(folder.name)
    threading.Thread(target=lambda: (time.sleep(0.1), print("waited for"))).start()
    return 3

sys.exit(run_command(work))
"""


def test_the_end_of_a_command_takes_nothing_apart_and_leaves_nothing_out(tmp_path):
    done = subprocess.run([sys.executable, "-c", END, tmp_path / "left"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "waited for\nTrue and behind\n", "")
    folder = (tmp_path / "left").read_text()  # an open file has been written
    assert folder
    assert not os.path.exists(folder)
