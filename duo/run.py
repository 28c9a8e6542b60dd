"""python -m duo.run recipe=NAME [key=value ...]: from a recipe to weights, scores, a table and figures."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from rich.console import Console
from rich.text import Text

from duo.recipe.help import knobs, summary
from duo.recipe.read import recipes
from duo.recipe.schema import Recipe, load
from duo.routing import registry
from duo.storage.files import replacing
from duo.storage.processes import is_chief
from duo.training import quiet

if TYPE_CHECKING:
    from duo.evaluation.comparison import Comparison
    from duo.evaluation.result import Result

USAGE = "python -m duo.run recipe=NAME [key=value ...]"
WIDTH = 165  # of the tables, also where the output is no terminal


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status: 0 done, 1 a mistake or a failed run, 2 no recipe."""
    if {"--help", "-h"} & {*arguments}:
        show_help()
        return 0
    named = [argument for argument in arguments if argument.startswith("recipe=")]
    if not named:
        print(f"Which recipe? Type: {USAGE}\nRecipes: {', '.join(recipes())}\nMore: --help", file=sys.stderr)
        return 2
    try:
        name = named[-1].removeprefix("recipe=")
        recipe = load(name, [argument for argument in arguments if argument not in named])
        run(recipe, Path(name).stem, shlex.join(["python", "-m", "duo.run", *arguments]))
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(recipe: Recipe, name: str, command: str = "") -> Result | Comparison:
    """Trains what is not trained yet, evaluates, and shows and returns the result.

    Raises:
        ValueError: an impossible recipe, unreadable data, or an output folder that belongs to something else.
        FloatingPointError: a training loss is not finite.
    """
    for row in recipe.rows():
        row.new_router()  # impossible options show before any work
    folder = Path(recipe.output or f"outputs/{name}-{recipe.digest[:8]}")
    console = Console(highlight=False, markup=False, soft_wrap=True, quiet=not is_chief())
    console.width = max(console.width, WIDTH)
    if not is_chief():
        return compute(recipe, name, command, folder, console)
    claim(recipe, name, folder)
    try:
        with FileLock(folder / ".lock", timeout=0):
            result = compute(recipe, name, command, folder, console)
    except Timeout as error:
        raise ValueError(f"output={folder} is in use by another run: wait for it, or choose another folder") from error
    show(result, folder, console)
    return result


def compute(recipe: Recipe, name: str, command: str, folder: Path, console: Console) -> Result | Comparison:
    """The result in `folder`; what is missing there is trained and evaluated."""
    from duo.stages import single as jobs

    def say(stage: str, text: str) -> None:
        console.print(Text.assemble((stage, "bold"), f"  {text}"))

    quiet.quieten()
    done = jobs.finished(recipe, folder)
    return done or jobs.work(recipe, name, command, folder, cache_folder(recipe, folder), say)


def claim(recipe: Recipe, name: str, folder: Path) -> None:
    """Makes the run's folder, or takes it up again.

    Raises:
        ValueError: it belongs to another run, holds other files, or cannot be written.
    """
    file = folder / "recipe.yaml"
    if file.exists():
        try:
            theirs = load(str(file)).digest
        except ValueError as error:
            raise ValueError(
                f"output={folder} holds a recipe.yaml that is not ours ({error}): choose another"
            ) from error
        if theirs != recipe.digest:
            which = f"({theirs[:8]}; this one is {recipe.digest[:8]})"
            raise ValueError(f"output={folder} belongs to another recipe {which}: choose another folder")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ValueError(f"output={folder} holds files of something else: choose a new or empty folder")
        with replacing(file) as path:
            path.write_text(f"# {name}, resolved; digest {recipe.digest}\n{OmegaConf.to_yaml(recipe.settings)}")
    except OSError as error:
        raise ValueError(f"output={folder} cannot be written: {error.strerror or error}") from error


def cache_folder(recipe: Recipe, folder: Path) -> Path:
    """Where prepared data and trained backbones are kept."""
    from platformdirs import user_cache_path

    return folder / "cache" if recipe.cache == "none" else Path(recipe.cache or user_cache_path("duo"))


def show(result: Result | Comparison, folder: Path, console: Console) -> None:
    """The tables, the figures and the folder."""
    from duo.report.tables import shown

    for part in shown(result):
        console.print(part)
    for path in (*sorted(folder.glob("figures/*.png")), folder / "result.json", folder):
        console.print(str(path))


def show_help() -> None:
    """Usage, recipes, and every knob with its default and its sentence."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{USAGE}\n\nRecipes (NAME, or the path of a YAML file):")
    for name, path in recipes().items():
        console.print(f"  {name:24} {summary(path)}")
    console.print("\nRouters (router.name=NAME) and their options (router.OPTION=VALUE):")
    for name in registry.available():
        console.print(f"  {name:24} {registry.signature(name)}")
    console.print("\nKnobs (key=value; defaults where the recipe says nothing):")
    for key, default, sentence in knobs():
        shown = "null" if default is None else str(default).lower() if isinstance(default, bool) else default
        console.print(f"  {key}={shown}\n      {sentence}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
