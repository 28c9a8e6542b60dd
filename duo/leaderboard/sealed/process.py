"""Children that inherit nothing: neither memory, nor files, nor the places that the environment names."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

from duo.leaderboard.sealed.protocol import Answer, read_answer
from duo.progress import count
from duo.progress.passed import read_share
from duo.storage.shared import STORE

KEPT = (
    "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL", "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
)  # fmt: skip
"""Variables that a child keeps: what the interpreter and torch need to run alike, and no place of data."""
PATIENCE = 3600.0
"""Seconds that a child may take."""
LOOKS = 0.5
"""Seconds between two looks at what a child says of itself."""
LAST_WORDS = 4096  # bytes of what it prints that are kept


def run_child(task: str, folder: Path, who: str, patience: float = PATIENCE) -> Answer:
    """Runs `python -m duo.leaderboard.sealed TASK` in a folder, and returns what it says there.

    It is started anew, not forked, with no open file and no terminal. What it prints is dropped, but for its last words
    if it dies. Whatever it has started ends with it.

    Args:
        task: `route` or `train`.
        folder: the child's working directory, home, cache and store, which holds all that it is given.
        who: the router, as errors name it.
        patience: seconds that it may take.

    Raises:
        ValueError: it died, did not end in time, or left no answer; the router is named.
    """
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "duo.leaderboard.sealed", task],
        cwd=folder, env=_environment(folder), start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    words = bytearray()
    listener = threading.Thread(target=_listen, args=(process.stderr, words), daemon=True)
    listener.start()
    where = f"{who}, in a process without labels,"
    try:
        code = _wait(process, folder, begun + patience)
    except subprocess.TimeoutExpired:
        raise ValueError(f"{where} gave no answer within {patience:g} seconds: give it more with --patience") from None
    finally:
        _end(process)
        listener.join(1)
    if code:
        said = [line for line in words.decode(errors="replace").splitlines() if line.strip()]
        last = "".join(sign for sign in said[-1].strip()[:300] if sign.isprintable()) if said else "it said nothing"
        raise ValueError(f"{where} ended with {code}: {last}")
    try:
        return read_answer(folder)
    except ValueError as error:
        raise ValueError(f"{where} gave no answer: {error}") from error


def _wait(process: subprocess.Popen[bytes], folder: Path, until: float) -> int:
    """The child's exit status; meanwhile shows how far it says it is. Raises TimeoutExpired where it takes longer."""
    with count("in a process without labels", 1) as part:
        while True:
            try:
                return process.wait(min(LOOKS, max(until - time.monotonic(), 0)))
            except subprocess.TimeoutExpired:
                if time.monotonic() >= until:
                    raise
                share = read_share(folder)
                if share and not part.done:
                    part.begin(share)  # its imports say nothing of how long the rest takes
                part.go_on(share)


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    imports = dict.fromkeys(os.path.abspath(path) for path in sys.path)  # packages of this process, whoever put them
    home = dict.fromkeys(("HOME", "USERPROFILE", "XDG_CACHE_HOME", "TMPDIR", "TEMP", "TMP"), str(folder))
    return kept | home | {"PYTHONPATH": os.pathsep.join(imports), STORE: str(folder / "store")}


def _listen(pipe: IO[bytes], words: bytearray) -> None:
    """Reads to the end, so that nobody waits for it, and keeps the last words."""
    with contextlib.suppress(ValueError, OSError):  # it was closed
        while chunk := os.read(pipe.fileno(), LAST_WORDS):
            words += chunk
            del words[:-LAST_WORDS]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a child and whatever it has started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # none is left
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
