"""Around every command's work: what its user or its machine causes ends in one line and an exit status."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable

import torch

from duo.progress.start import speak
from duo.storage.location import one_line, shown_text
from duo.storage.memory import end_quickly, keep_freed_memory
from duo.storage.processes import is_chief, naming_lost
from duo.storage.signals import Stopped, stopping

CLOSED = "the output was closed: nobody reads it any more"
WAY_OUT = {
    errno.ENOSPC: "make room on the disk; the same command goes on",
    errno.EDQUOT: "make room in your quota; the same command goes on",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def run_command(work: Callable[[], int]) -> int:
    """Does a command's work; returns its exit status: the work's own, 1 after a mistake, 128 + N after signal N.

    What is duo's own mistake is raised on, and shows where.
    """
    _prepare_streams()
    keep_freed_memory()
    end_quickly()
    try:
        with stopping(), naming_lost():
            status = work()
            speak()
            sys.stdout.flush()  # here, where a full disk can still be told
    except Stopped as stop:
        return _stop(stop)
    except BrokenPipeError:  # whoever read has left, as `head` does
        status = _tell(CLOSED)
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):  # rich makes this of it
            raise
        status = _tell(CLOSED)
    except OSError as error:
        status = _tell(_with_way_out(error))
    except (ValueError, FloatingPointError) as error:
        status = _tell(str(error))
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        status = _tell(f"out of memory ({str(error).strip() or 'MemoryError'}): lower data.batch_size, or use less")
    return status


def _tell(text: str) -> int:
    """Prints the line, and leaves nothing for the interpreter's end to fail on; returns exit status 1."""
    speak()
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    with contextlib.suppress(OSError):  # nowhere is left to say it
        print(f"error: {shown_text(one_line(text))}", file=sys.stderr, flush=True)  # without passwords
    return 1


def _prepare_streams() -> None:
    """Lets a terminal that knows few characters show the others as escapes; what is closed takes all and shows none."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 # for as long as the process lives
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _with_way_out(error: OSError) -> str:
    way_out = WAY_OUT.get(error.errno or 0)
    return f"{error}: {way_out}" if way_out else str(error)


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out; torch says so on the CPU in words alone."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _stop(stop: Stopped) -> int:
    if is_chief():
        with contextlib.suppress(OSError):
            print(f"stopped by {stop.name}; the same command goes on", file=sys.stderr, flush=True)
            if stop.name == "SIGUSR1":
                _requeue()
    return 128 + stop.number


def _requeue() -> None:
    """Asks SLURM, which warned of the job's end, to start the job again."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
    if job:
        try:
            done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
            said = f"failed: {one_line(done.stderr)}" if done.returncode else "done"
        except OSError as error:  # it is not there
            said = f"failed: {error}"
        print(f"scontrol requeue {job}: {said}", file=sys.stderr, flush=True)
