"""Where a sweep's tasks run: processes of this machine, or jobs of SLURM."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from duo.routing.registry import unknown
from duo.storage.signals import PATIENCE

INSTALL = "sweeps need submitit: pip install 'duo-llm[sweep]'"
FOREVER = 60 * 24 * 3650  # minutes: submitit's processes end after two
MOST_REQUEUED = 1000  # times that SLURM starts a job again whose time was over


class Task(NamedTuple):
    """Something that a process does."""

    name: str
    work: Callable[[Sequence[str]], int]
    """Returns an exit status; importable by its module's name."""
    arguments: tuple[str, ...]
    folder: Path
    """Of its log."""
    threads: int
    after: tuple[str, ...] = ()
    """Names of tasks that it waits for."""


class Call:
    """A task's work as submitit takes it; a job of SLURM whose time is over does the same again."""

    def __init__(self, work: Callable[[Sequence[str]], int], environment: Mapping[str, str | None]) -> None:
        self.work, self.environment = work, environment

    def __call__(self, arguments: Sequence[str]) -> int:
        """The work's exit status, in an environment with these variables; None: without them."""
        for name, value in self.environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        return self.work(arguments)

    def checkpoint(self, arguments: Sequence[str]) -> Any:
        """What submitit asks for before it queues a job again: the same, which goes on from what is kept."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, arguments)


class Machine(Protocol):
    """Where tasks run."""

    def start(self, task: Task, slot: int) -> Any:
        """A job of submitit's; of those that run at once each has a slot of its own."""

    def stop(self, jobs: Sequence[Any]) -> None:
        """Ends jobs, and waits for their end."""

    def statuses(self, job: Any) -> list[int]:
        """Exit statuses of a job that is done; empty where it left none."""


class Here:
    """Processes of this machine.

    Args:
        devices: what CUDA_VISIBLE_DEVICES is for each slot; None: as it is.

    Raises:
        ValueError: submitit is not installed.
    """

    def __init__(self, devices: Sequence[str] | None = None) -> None:
        self._submitit, self._devices = _import(), devices

    def start(self, task: Task, slot: int) -> Any:
        """A process with the task's threads, unless OMP_NUM_THREADS says how many."""
        executor = self._submitit.LocalExecutor(_empty(task.folder))
        executor.update_parameters(timeout_min=FOREVER, stderr_to_stdout=True)
        # submitit hides all devices where it is asked for none
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if self._devices:
            visible = self._devices[slot % len(self._devices)]
        call = Call(task.work, {"CUDA_VISIBLE_DEVICES": visible})
        with _threads(task.threads), _deaf():
            return executor.submit(call, task.arguments)

    def stop(self, jobs: Sequence[Any]) -> None:
        """Asks each as a scheduler would, and again: a second signal ends what does not listen to the first."""
        again = 0.0
        while left := [job for job in jobs if not job.done()]:
            if time.monotonic() > again:
                again = time.monotonic() + PATIENCE + 1
                for job in left:
                    os.kill(int(job.job_id), signal.SIGTERM)  # submitit's process hands it on; SIGINT it ignores
            time.sleep(0.1)

    def statuses(self, job: Any) -> list[int]:
        """Its one exit status."""
        return _results(job) if job.paths.result_pickle.exists() else []


class Slurm:
    """Jobs of SLURM.

    Args:
        asked: what each job is given, in sbatch's words.

    Raises:
        ValueError: there is no submitit or no SLURM, or it does not know what is asked for.
    """

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self._submitit, self._asked = _import(), asked
        known = self._submitit.SlurmExecutor._valid_parameters()
        for key in asked:
            if key not in known:
                raise ValueError(unknown("key", f"sweep.slurm.{key}", [f"sweep.slurm.{name}" for name in known]))
        if not isinstance(asked.get("time"), int) or asked["time"] < 1:
            raise ValueError(
                f"sweep.slurm.time={asked.get('time', 'null')} must be each job's minutes: after 5 it ends"
            )
        if self._submitit.SlurmExecutor.affinity() <= 0:
            raise ValueError("sweep.slurm needs SLURM's srun, which is not here: leave sweep.slurm out to run here")

    def start(self, task: Task, slot: int) -> Any:
        """A job that is queued again when its time is over."""
        executor = self._submitit.SlurmExecutor(_empty(task.folder), max_num_timeout=MOST_REQUEUED)
        executor.update_parameters(**{"job_name": "duo", **self._asked, "stderr_to_stdout": True})
        return executor.submit(Call(task.work, {}), task.arguments)

    def stop(self, jobs: Sequence[Any]) -> None:
        """Takes them off the queue, or ends them."""
        for job in jobs:
            job.cancel(check=False)

    def statuses(self, job: Any) -> list[int]:
        """Those of its processes; its files may come later than its end."""
        return _results(job)


def _results(job: Any) -> list[int]:
    """Exit statuses of a job's processes; empty where one left none."""
    try:
        return [*job.results()]
    except Exception:  # submitit has exceptions of several kinds; the log says more
        return []


def devices_of(parallel: int, options: Mapping[str, Any]) -> list[str] | None:
    """What each of several runs at once sees of this machine's CUDA devices: one in turn; None: all of them.

    Args:
        parallel: runs at once.
        options: the recipe's arguments of `lightning.Trainer`; who names devices shares them out.
    """
    if parallel < 2 or "devices" in options or (found := torch.cuda.device_count()) < 2:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [*map(str, range(found))]


def threads_of(parallel: int, runs: int) -> int:
    """Threads of each process; the same for all, however many are left, for they set the order of sums.

    >>> threads_of(1000, 1000)
    1
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // min(parallel, runs), 1)


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    """What is started inside has so many threads, unless somebody said another number."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started inside hears no Ctrl-C: a terminal sends it to all, and the sweep itself ends its processes."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def _empty(folder: Path) -> Path:
    """The folder, without what an earlier process of the same number left for submitit."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.pkl"):
        left.unlink()
    return folder


def _import() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ValueError(INSTALL) from error
    return submitit
