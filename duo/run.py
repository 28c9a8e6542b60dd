"""python -m duo.run recipe=NAME [key=value ...]: from a recipe to weights, scores, a table and figures."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from duo.recipe import Recipe, load, recipes, short_name
from duo.recipe.help import settings, summary
from duo.report.command import run_command
from duo.report.messages import messages, plain_console
from duo.routing import registry
from duo.storage.processes import is_chief, launched_as

if TYPE_CHECKING:
    import torch

    from duo.evaluation.comparison import Comparison
    from duo.evaluation.downstream import Downstream
    from duo.evaluation.result import Result
    from duo.report.reproduce import Report

USAGE = "python -m duo.run recipe=NAME [key=value ...]"


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status: 0 done, 1 a mistake or a failed run, 2 no recipe, 128 + N by signal N."""
    if {"--help", "-h"} & {*arguments}:
        return run_command(show_help)
    named = [argument for argument in arguments if argument.startswith("recipe=")]
    if not named:
        print(f"Which recipe? Type: {USAGE}\nRecipes: {', '.join(recipes())}\nMore: --help", file=sys.stderr)
        return 2
    name = named[-1].removeprefix("recipe=")

    def work() -> int:
        launched_as()  # Lightning reads the variables as soon as it is imported
        recipe = load(name, [argument for argument in arguments if argument not in named])
        command = shlex.join(["python", "-m", "duo.run", *arguments])
        if recipe.report.names:
            return int(bool(report(recipe, short_name(name), command).failed))
        run(recipe, short_name(name), command)
        return 0

    return run_command(work)


def run(recipe: Recipe, name: str, command: str = "") -> Result | Comparison | Downstream:
    """Trains what is not trained yet, evaluates, draws, saves, and shows and returns the result.

    Raises:
        ValueError: an impossible recipe, unreadable data, or an output folder that belongs to something else.
        FloatingPointError: a training loss is not finite.
    """
    if recipe.report.names:
        raise ValueError(f"recipe={name} is a report of several comparisons: make it with duo.run.report")
    device, folder, console = begin(recipe, name)
    from duo.stages.output import hold_output

    with messages(console, wants_progress(recipe)):
        if not is_chief():
            return compute(recipe, name, command, folder, device)
        with hold_output(recipe, name, folder):
            result = compute(recipe, name, command, folder, device)
    show(result, folder, console)
    return result


def report(recipe: Recipe, name: str, command: str = "") -> Report:
    """Makes a report of several comparisons, shows its verdicts and what failed, and returns it.

    Raises:
        ValueError: an impossible recipe, or an output folder that belongs to something else.
    """
    device, folder, console = begin(recipe, name)
    from duo.report.reproduce import reproduce
    from duo.stages.cache import open_cache
    from duo.stages.output import cache_of, hold_output

    with messages(console, wants_progress(recipe)), hold_output(recipe, name, folder):
        open_cache(cache := cache_of(recipe, folder))
        found = reproduce(recipe, command, folder, cache, device)
    for claim in found.claims:
        console.print(f"{claim.verdict:14} {claim.place:14} {claim.holdout}: {claim.says}")
    for what, why in found.failed.items():
        console.print(f"failed  {what}: {why}")
    console.print(str(found.page))
    return found


def begin(recipe: Recipe, name: str) -> tuple[torch.device, Path, Console]:
    """Where a recipe computes, writes and speaks."""
    for row in recipe.rows():
        row.new_router()  # impossible options show before any work
    from duo.stages.output import folder_of  # Lightning takes seconds: mistakes show before
    from duo.training.trainer import join_world, quieten

    quieten()
    device = join_world(recipe.trainer)  # first: it says which of several processes is to be heard
    console = plain_console(quiet=not is_chief())
    return device, folder_of(recipe, name), console


def wants_progress(recipe: Recipe) -> bool:
    """Whether the recipe lets it be shown how far work is."""
    return bool(recipe.trainer.get("enable_progress_bar", True))


def compute(
    recipe: Recipe, name: str, command: str, folder: Path, device: torch.device
) -> Result | Comparison | Downstream:
    """The result in `folder`; what is missing there is trained, evaluated, saved and drawn."""
    from duo import stages
    from duo.report import figures
    from duo.stages.cache import open_cache
    from duo.stages.output import cache_of, keep_result, load_curves, load_finished

    if (result := load_finished(recipe, folder)) is None:
        open_cache(cache := cache_of(recipe, folder))
        if recipe.tasks:
            result = stages.run_downstream(recipe, name, command, folder, cache=cache, device=device)
        elif recipe.compare.names:
            result = stages.run_comparison(recipe, name, command, cache, device)
        else:
            result = stages.run_single(recipe, name, command, folder, cache=cache, device=device)
        if is_chief():
            keep_result(folder, result)
    if is_chief():
        figures.draw(result, load_curves(folder), folder)  # after the result, which no figure may cost
    return result


def show(result: Result | Comparison | Downstream, folder: Path, console: Console) -> None:
    """The tables, the figures and the folder; where the output is a terminal, tables are as wide as that."""
    from duo.report.tables import render
    from duo.report.width import print_fitting

    print_fitting(render(result), console)
    for path in (*sorted(folder.glob("figures/*.png")), folder / "result.json", folder):
        console.print(str(path))


def show_help() -> int:
    """Usage, recipes, and every setting with its default and its sentence."""
    console = plain_console()
    console.print(f"{USAGE}\n\nRecipes (NAME, or the path of a YAML file):")
    for name, path in recipes().items():
        console.print(f"  {name:24} {summary(path)}")
    console.print("\nscale=NAME runs a recipe at one of its own scales (those of the paper have one: tiny).")
    console.print("\nRouters (router.name=NAME) and their options (router.OPTION=VALUE):")
    for name in registry.available():
        console.print(f"  {name:24} {registry.signature(name)}")
    console.print("\nSettings (key=value; defaults where the recipe says nothing):")
    for key, default, sentence in settings():
        shown = "null" if default is None else str(default).lower() if isinstance(default, bool) else default
        console.print(f"  {key}={shown}\n      {sentence}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
