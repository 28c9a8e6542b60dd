"""Tasks, so many at once, each when what it needs is there."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from duo.progress import count
from duo.sweep.machine import Machine, Task

AGAIN = 0.5  # seconds between two looks at what runs
LAST_WORDS = 1 << 15  # bytes at the end of a log


class End(NamedTuple):
    """How a task ended."""

    task: Task
    failed: str | None
    """Why it failed."""
    seconds: float


def work_off(tasks: Sequence[Task], machine: Machine, parallel: int, tell: Callable[[Task | End], None]) -> None:
    """Runs all tasks; one that fails fails those that wait for it, and the others go on.

    Args:
        tasks: in order.
        machine: where they run.
        parallel: how many run at once.
        tell: is told of each task when it begins, and of its end.
    """
    waiting = [*tasks]
    running: dict[Task, tuple[Any, int]] = {}
    begun: dict[Task, float] = {}
    failed: dict[str, str] = {}
    ended: set[str] = set()
    slots = [*range(parallel)]
    needed = {name for task in tasks for name in task.after}
    counted = [task for task in tasks if task.name not in needed]
    try:
        with count("run", len(counted)) as part:
            while waiting or running:
                for task in [*waiting]:
                    if lost := [name for name in task.after if name in failed]:
                        waiting.remove(task)
                        failed[task.name] = f"{lost[0]} failed: {failed[lost[0]]}"
                        tell(End(task, failed[task.name], 0.0))
                    elif slots and ended.issuperset(task.after):
                        waiting.remove(task)
                        slot = slots.pop(0)
                        running[task], begun[task] = (machine.start(task, slot), slot), time.monotonic()
                        tell(task)
                for task, (job, slot) in [*running.items()]:
                    if job.done():
                        del running[task]
                        slots.append(slot)
                        if why := _failure(task, job, machine):
                            failed[task.name] = why
                        ended.add(task.name)
                        tell(End(task, why, time.monotonic() - begun[task]))
                part.go_on(sum(task.name in ended or task.name in failed for task in counted))
                time.sleep(AGAIN if running else 0)
    finally:
        machine.stop([job for job, _ in running.values()])


def _failure(task: Task, job: Any, machine: Machine) -> str | None:
    """Why a job failed, with its log; None where it did not."""
    statuses = machine.statuses(job)
    if statuses and not any(statuses):
        return None
    log = Path(job.paths.stdout)
    said = _last_error(log)
    status = next(filter(None, statuses), None)
    if status is not None and status > 128:
        said = f"it was stopped by {signal.Signals(status - 128).name}"
    elif said is None:
        said = "it ended without a word (killed, or out of memory?)" if status is None else f"exit status {status}"
    return f"{said} (log: {log})"


def _last_error(log: Path) -> str | None:
    """What a log's last line says, if that is an error of duo's or of Python's."""
    try:
        with log.open("rb") as file:
            file.seek(max(log.stat().st_size - LAST_WORDS, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    raised = lines[-1] if "Traceback (most recent call last):" in lines else None
    return told[-1] if told else raised
