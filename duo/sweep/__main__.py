"""python -m duo.sweep recipe=NAME KEY=VALUE,VALUE [...]: a recipe under many values, as processes or jobs of SLURM."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from duo.evaluation.comparison import Comparison
from duo.progress.shown import tell_time
from duo.progress.start import speak
from duo.recipe import Recipe, recipes, short_name
from duo.report.command import run_command
from duo.report.messages import messages, plain_console
from duo.sweep.typed import PlanConfig, SweepConfig, Typed, read_typed

if TYPE_CHECKING:
    from duo.sweep.machine import Machine
    from duo.sweep.runs import SweepRun

USAGE = "python -m duo.sweep recipe=NAME KEY=VALUE,VALUE [...] [--dry] [sweep.parallel=2] [key=value ...]"
HELP = f"""{USAGE}

Runs a recipe under every combination of values, several runs at once, and puts what they find together: one
comparison, one table, one figure. Rows are averaged over values of `seed`. Backbones that runs share are trained once.
The same command goes on with what is not finished; a run that fails is told, and the others go on (exit status 1).

  recipe=NAME               a recipe of one router, which is then compared with fixed_best, random and all_big, or one
                            that compares rows; of one with compare.over and compare.seeds no values are needed
  budget.big=2,4,6 seed=0,1 any of the recipe's settings, with commas between values (lists in brackets: [0],[0,1])
  --dry                     shows what would run, and its planned hours (device=h100 devices=1 efficiency=0.4)
  sweep.parallel=2          runs at once
  sweep.slurm.time=60       minutes: the runs are jobs of SLURM; sweep.slurm.partition=gpu, sweep.slurm.gpus_per_node=1,
                            sweep.slurm.cpus_per_task=8, ... as sbatch calls them
  output=DIR                folder of the sweep: recipe.yaml, result.json, figures/, runs/ and jobs/ (their logs)

Every other setting is the recipe's: python -m duo.run --help. It needs submitit: pip install 'duo-llm[sweep]'"""
HERE, ON_SLURM = 2, 1000  # runs at once, where nobody says how many

log = logging.getLogger("duo.sweep")  # not __name__, which is __main__


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status: 0 done, 1 a mistake or a failed run, 2 no recipe, 128 + N by signal N."""
    if {"--help", "-h"} & {*arguments}:
        print(HELP)
        return 0
    named = [argument for argument in arguments if argument.startswith("recipe=")]
    if not named:
        print(f"Which recipe? Type: {USAGE}\nRecipes: {', '.join(recipes())}\nMore: --help", file=sys.stderr)
        return 2
    name = named[-1].removeprefix("recipe=")
    settings = [argument for argument in arguments if argument not in named and argument != "--dry"]
    command = shlex.join(["python", "-m", "duo.sweep", *arguments])

    def work() -> int:
        typed = read_typed(name, settings)
        from duo.sweep.runs import sweep_recipe  # Lightning takes seconds: mistakes show before

        whole = sweep_recipe(typed.recipe, typed.over, name)
        if "--dry" in arguments:
            return show_plan(whole, short_name(name), typed)
        if typed.plan != PlanConfig():
            raise ValueError("device, devices and efficiency are what --dry plans for: a run is given trainer.devices")
        return sweep(whole, short_name(name), command, typed.config)

    return run_command(work)


def show_plan(whole: Recipe, name: str, typed: Typed) -> int:
    """Prints what would run, and its planned hours."""
    from duo.stages.output import folder_of, load_finished
    from duo.sweep.dry import lines_of
    from duo.sweep.runs import runs_of

    folder = folder_of(whole, f"sweep-{name}")
    runs = runs_of(whole, folder)
    finished = {run.name for run in runs if load_finished(run.recipe, run.folder)}
    speak()
    print(f"{len(runs)} runs, {_parallel(typed.config, len(runs))} at once, in {folder}\n", flush=True)
    for line in lines_of(whole, runs, finished, _parallel(typed.config, len(runs)), typed.plan):
        print(line)
    return 0


def sweep(whole: Recipe, name: str, command: str, config: SweepConfig) -> int:
    """Makes what is not made yet, shows the comparison and what failed; returns the exit status.

    Raises:
        ValueError: impossible values, no submitit, an output folder of something else, or every run failed.
    """
    for row in whole.rows():
        row.new_router()  # impossible options show before any work
    from duo.report import figures
    from duo.run import show, wants_progress
    from duo.stages.output import folder_of, hold_output, keep_result, load_finished
    from duo.sweep.gather import gather
    from duo.sweep.machine import Here, Slurm, devices_of
    from duo.sweep.runs import runs_of
    from duo.training.trainer import quieten

    quieten()
    folder = folder_of(whole, f"sweep-{name}")
    runs = runs_of(whole, folder)
    parallel = _parallel(config, len(runs))
    machine: Machine = Slurm(config.slurm) if config.slurm else Here(devices_of(parallel, whole.trainer))
    console = plain_console()
    found: dict[str, Comparison] = {}
    failed: dict[str, str] = {}
    with messages(console, wants_progress(whole)), hold_output(whole, f"sweep-{name}", folder):
        result = load_finished(whole, folder)
        if result is None:
            found, failed = _make(runs, folder, machine, parallel)
            result = gather(whole, f"sweep-{name}", command, runs, found, failed)
            keep_result(folder, result)
        figures.draw(result, {}, folder)
    show(result, folder, console)
    failed |= {f"{name}, row {row}": why for name, done in found.items() for row, why in _failures(done).items()}
    for what, why in failed.items():
        console.print(f"failed  {what}: {why}")
    if failed:
        console.print(f"{len(failed)} failed; the same command goes on with them")
    return int(bool(failed))


def _make(
    runs: Sequence[SweepRun], folder: Path, machine: Machine, parallel: int
) -> tuple[dict[str, Comparison], dict[str, str]]:
    """What runs found, and why others failed, by name; those that are finished are not run again."""
    from duo.stages.output import load_finished, read_result
    from duo.sweep.machine import Task
    from duo.sweep.queue import End, work_off
    from duo.sweep.tasks import tasks_of

    found: dict[str, Comparison] = {}
    failed: dict[str, str] = {}
    for run in runs:
        if isinstance(done := load_finished(run.recipe, run.folder), Comparison):
            found[run.name] = done
    left = [run for run in runs if run.name not in found]
    log.info("sweep  %s runs, %s of them finished, %s at once, in %s", len(runs), len(found), parallel, folder)

    def tell(event: Task | End) -> None:
        if isinstance(event, Task):
            log.info("begun  %s", event.name)
        elif event.failed:
            failed[event.task.name] = event.failed
            log.warning("failed  %s: %s", event.task.name, event.failed)
        else:
            log.info("done  %s in %s", event.task.name, tell_time(event.seconds))

    work_off(tasks_of(runs, left, folder, parallel), machine, parallel, tell)
    for run in left:
        if run.name not in failed:
            done = read_result(run.recipe, run.folder)
            assert isinstance(done, Comparison)
            found[run.name] = done
    return found, failed


def _failures(done: Comparison) -> dict[str, str]:
    return {name: row.failed for rows in done.groups.values() for name, row in rows.items() if row.failed}


def _parallel(config: SweepConfig, runs: int) -> int:
    """Runs at once."""
    return min(config.parallel or (ON_SLURM if config.slurm else HERE), runs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
