"""A whole run from nothing, part by part: wall, processor time, and the share of it outside the model's arithmetic.

    python benchmarks/main_job.py [RECIPE] [key=value ...] [--whole] [--operators] [--quick]

Parts are told by what the run itself logs; `start` is Python, torch and Lightning. RECIPE is router_budget6, with a
twentieth of its steps unless `--whole`; seconds of both stages are then shown as of the whole. `--operators` has torch
note every operator: what a part takes beside them (Python, autograd, Lightning, files) is outside arithmetic, and
noting makes it larger than it is.
"""

from __future__ import annotations

import time

BEGUN = time.perf_counter()  # before anything is imported: processor time begins with the process

import argparse  # noqa: E402
import logging  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from tempfile import TemporaryDirectory  # noqa: E402

import torch  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

from duo import recipe  # noqa: E402
from duo.run import main  # noqa: E402

SHORTER = 20  # times fewer steps
STAGES = {"stage 1  training": "stage1", "stage 3  training": "stage3"}
"""By the beginning of what is logged: whose steps the part is made of."""


@dataclass
class Part:
    """What begins with one message."""

    title: str
    wall: float
    processor: float
    operators: float = 0.0
    """Wall seconds inside operators."""


class Watch(logging.Handler):
    """Notes when each part begins."""

    def __init__(self, operators: bool) -> None:
        super().__init__()
        self.parts = [Part("start", BEGUN, 0.0)]
        self._operators, self._profile = operators, None

    def emit(self, record: logging.LogRecord) -> None:
        """Ends a part, and begins the next."""
        self.end()
        self.parts.append(Part(record.getMessage(), time.perf_counter(), time.process_time()))
        if self._operators:
            self._profile = profile(activities=[ProfilerActivity.CPU])
            self._profile.__enter__()

    def end(self) -> None:
        """Turns the beginning of the last part into what it took."""
        part = self.parts[-1]
        part.wall, part.processor = time.perf_counter() - part.wall, time.process_time() - part.processor
        if self._profile is not None:
            self._profile.__exit__(None, None, None)
            events = self._profile.key_averages()
            part.operators = sum(event.self_cpu_time_total for event in events if event.key.startswith("aten::")) / 1e6
            self._profile = None


def title_of(part: Part) -> str:
    """What was logged, without the folder it names."""
    return " ".join(part.title.partition(" in /")[0].partition(", kept in")[0].split())


def show(parts: list[Part], factors: dict[str, float], operators: bool) -> None:
    """Prints a table."""
    for part in parts:
        factor = next((factors[stage] for beginning, stage in STAGES.items() if part.title.startswith(beginning)), 1)
        part.wall, part.processor, part.operators = part.wall * factor, part.processor * factor, part.operators * factor
    whole = sum(part.processor for part in parts)
    print("| part | wall s | processor s | share |" + (" outside operators |" if operators else ""))
    print("|---|---|---|---|" + ("---|" if operators else ""))
    for part in [*parts, Part("all", sum(part.wall for part in parts), whole, sum(part.operators for part in parts))]:
        line = f"| {title_of(part)} | {part.wall:.1f} | {part.processor:.1f} | {part.processor / whole:.1%} |"
        noted = operators and part.title != "start"
        print(line + (f" {1 - part.operators / part.wall:.0%} |" if noted else " |" if operators else ""))


def measure(name: str, settings: list[str], whole: bool, operators: bool) -> None:
    """Runs a recipe in an empty cache, and prints what its parts took."""
    chosen = recipe.load(name, settings)
    steps = {stage: getattr(chosen, stage).steps for stage in STAGES.values()}
    fewer = {stage: count if whole else max(count // SHORTER, 1) for stage, count in steps.items()}
    watch, logger = Watch(operators), logging.getLogger("duo")
    logger.addHandler(watch)
    logger.setLevel(logging.INFO)
    with TemporaryDirectory() as folder:
        settings += [f"{stage}.steps={count}" for stage, count in fewer.items()]
        code = main([f"recipe={name}", *settings, f"cache={folder}/cache", f"output={folder}/run"])
        watch.end()
    if code:
        raise SystemExit(code)
    print(f"\n{name}, {torch.get_num_threads()} threads")
    show(watch.parts, {stage: steps[stage] / fewer[stage] for stage in steps}, operators)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="router_budget6")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("--whole", action="store_true", help="all steps")
    parser.add_argument("--operators", action="store_true", help="the share of time outside torch's operators")
    parser.add_argument("--quick", action="store_true", help="the tiny recipe, to see that it runs")
    options = parser.parse_args()
    measure("tiny" if options.quick else options.recipe, options.settings, options.whole, options.operators)
