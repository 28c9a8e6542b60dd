"""What the processes of a sweep do: a run of its own, or a backbone that several runs share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from duo import run
from duo.progress.start import RANKS
from duo.recipe import load
from duo.report.command import run_command
from duo.report.messages import messages
from duo.storage.processes import launched_as


def make_run(arguments: Sequence[str]) -> int:
    """`python -m duo.run` with these arguments, as soon as nobody else is at work in its folder; its exit status."""
    (folder,) = (argument.removeprefix("output=") for argument in arguments if argument.startswith("output="))
    if all(os.environ.get(name) in (None, "", "0") for name in RANKS):  # else the run's first process is at work there
        _wait_for(Path(folder))
    return run.main(arguments)


def _wait_for(folder: Path) -> None:
    """Waits until nobody is at work in a run's folder: a sweep that was killed leaves its runs at work."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting  for another process that is at work in {folder}", flush=True)
        lock.acquire()
    lock.release()


def make_backbone(arguments: Sequence[str]) -> int:
    """Trains the backbone of the one row that is named, if the cache lacks it; its exit status, as that of a run."""

    def work() -> int:
        launched_as()  # Lightning reads the variables as soon as it is imported
        (name,) = (argument.removeprefix("recipe=") for argument in arguments)
        recipe = load(name)
        device, folder, console = run.begin(recipe, "backbone")
        from duo.stages.cache import open_cache
        from duo.stages.output import cache_of
        from duo.stages.source import backbone_source

        with messages(console, run.wants_progress(recipe)):
            open_cache(cache := cache_of(recipe, folder))
            source = backbone_source(recipe)
            source.train_or_load(source.open_data(cache), device)
        return 0

    return run_command(work)
