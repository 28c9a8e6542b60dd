"""The tasks of a sweep: the backbones that runs share, and then the runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from duo.recipe import Recipe
from duo.stages.output import RECIPE, claim_output
from duo.sweep.machine import Task, threads_of
from duo.sweep.runs import SweepRun
from duo.sweep.work import make_backbone, make_run


def tasks_of(runs: Sequence[SweepRun], left: Sequence[SweepRun], folder: Path, parallel: int) -> list[Task]:
    """What there is to do; writes the recipe of each task.

    Args:
        runs: all of the sweep.
        left: those that are not finished.
        folder: of the sweep.
        parallel: tasks at once.

    Raises:
        ValueError: the folder of a run belongs to something else.
    """
    wanted = Counter(key for run in runs for key in run.backbones)
    shared = [key for key, number in wanted.items() if number > 1]
    asked = {key for run in left for key in run.backbones if key in shared}
    # of all runs, not of those that are left alone: a sweep that goes on finds the folder of the same recipe
    recipes = {key: row for run in runs for key, row in run.backbones.items() if key in asked}
    names = {key: f"backbone {number} of {len(shared)}" for number, key in enumerate(shared, 1)}
    tasks = [_backbone(names[key], key, row, folder, threads_of(parallel, len(shared))) for key, row in recipes.items()]
    for run in left:
        claim_output(run.recipe, run.name, run.folder)
        arguments = (f"recipe={run.folder.absolute() / RECIPE}", f"output={run.folder.absolute()}")
        after = tuple(names[key] for key in run.backbones if key in recipes)
        at = folder / "jobs" / run.folder.name
        tasks.append(Task(run.name, make_run, arguments, at, threads_of(parallel, len(runs)), after))
    return tasks


def _backbone(name: str, key: str, row: Recipe, folder: Path, threads: int) -> Task:
    at = folder / "jobs" / f"backbone-{key[:8]}"
    made = at / "backbone"
    claim_output(replace(row, output=str(made.absolute())), name, made)
    return Task(name, make_backbone, (f"recipe={made.absolute() / RECIPE}",), at, threads)
