"""What a sweep would run, and its planned hours."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence

import torch

from duo.plan.devices import find_device
from duo.plan.whole import plan
from duo.plan.works import Work, Works, train_works
from duo.recipe import BACKBONE, Recipe, digest
from duo.report.names import MOST, printable
from duo.sweep.runs import SweepRun
from duo.sweep.typed import HERE, PlanConfig

HOUR = 3600.0
SIZE, TIMES = 512, 20  # of the matrices that this machine is timed with, and how often
NAME = MOST + 2  # columns


def lines_of(
    whole: Recipe, runs: Sequence[SweepRun], finished: Collection[str], parallel: int, config: PlanConfig
) -> Iterator[str]:
    """The plan, line by line.

    Args:
        whole: the sweep's comparison.
        runs: all that make it.
        finished: names of those that are done.
        parallel: how many run at once.
        config: what hours are planned for.

    Raises:
        ValueError: something does not fit the device that is named.
    """
    rate, where = _rate(whole, config)
    yield f"{'run':{NAME}}{'state':>12}{'hours':>14}"
    made = {key: row for run in runs for key, row in run.backbones.items()}
    parts = [part for row in made.values() for part in train_works(row, config.devices)]
    flops = {digest(recipe.identity(*BACKBONE, "data")): work.flops for recipe, work in parts}
    backbones = sum(flops.values()) / rate
    if made:
        yield _line("1 backbone" if len(made) == 1 else f"{len(made)} backbones", "once", backbones)
    left, notes = 0.0, dict[str, None]()
    seen: dict[tuple[str, ...], float] = {}
    for run in runs:
        same = (run.group, *run.rows)  # whatever the seed
        if same not in seen:
            works, said = _works_of(run, config)
            notes |= dict.fromkeys(said)
            seen[same] = sum(work.flops for work in works if work.kind != "stage 1") / rate
        left += 0 if run.name in finished else seen[same]
        yield _line(run.name, "finished" if run.name in finished else "to run", seen[same])
    yield _line("what is left, and the backbones", "", left + backbones)
    if config.device != HERE:  # processes here share what was measured
        yield _line(f"the same, {parallel} at once", "", left / parallel + backbones)
    yield ""
    yield f"on {where}, at {config.efficiency:.0%} of its FLOPs"
    yield "(assumed; efficiency=SHARE, device=h100, devices=N for others); a backbone that"
    yield "the cache has is not trained again, whatever stands here"
    yield from (f"note: {note}" for note in notes)


def _works_of(run: SweepRun, config: PlanConfig) -> tuple[list[Work], list[str]]:
    """What a run does, and what is not counted; raises ValueError where it does not fit a device that is named."""
    if config.device == HERE:
        found = Works(run.recipe, config.devices)
        return found.done, found.notes
    planned = plan(run.recipe, run.name, config.device, config.devices)
    return planned.works, planned.notes


def _line(name: str, state: str, seconds: float) -> str:
    hours = f"{seconds / HOUR:,.2f}" if seconds >= HOUR / 100 else "< 0.01"
    return f"{printable(name):{NAME}}{state:>12}{hours:>14}"


def _rate(whole: Recipe, config: PlanConfig) -> tuple[float, str]:
    """FLOPs a second of what a run gets, and its name."""
    if config.device == HERE:
        rate = measure_rate()
        return rate * config.efficiency, f"this machine ({rate / 1e9:,.0f} GFLOP/s in products of matrices now)"
    precision = str(whole.trainer.get("precision", "32-true"))
    rate = find_device(config.device).flops(precision) * config.devices * config.efficiency
    return rate, f"{config.devices} {config.device} a run"


def measure_rate() -> float:
    """FLOPs a second of this machine's processors in products of matrices, the best of a few."""
    left = torch.rand(SIZE, SIZE)
    seconds = []
    for _ in range(TIMES):
        start = time.perf_counter()
        left @ left
        seconds.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(seconds)
