"""python -m duo.run recipe=NAME [key=value ...]: from a recipe to weights, scores, a table and figures."""

from __future__ import annotations

import logging
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from rich.console import Console

from duo import registry
from duo.files import is_chief, replacing
from duo.knobs import knobs, summary
from duo.provenance import provenance
from duo.recipe import Recipe, load, recipes

if TYPE_CHECKING:
    from duo.report import Result

USAGE = "python -m duo.run recipe=NAME [key=value ...]"
WIDTH = 135  # of the tables, also where the output is no terminal


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


def run(recipe: Recipe, name: str, command: str = "") -> Result:
    """Trains what is not trained yet, evaluates, and shows and returns the result.

    Raises:
        ValueError: an impossible recipe, unreadable data, or an output folder that belongs to something else.
        FloatingPointError: a training loss is not finite.
    """
    recipe.new_router()  # impossible options show before any work
    folder = Path(recipe.output or f"outputs/{name}-{recipe.digest[:8]}")
    console = Console(highlight=False, soft_wrap=True, quiet=not is_chief())
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


def compute(recipe: Recipe, name: str, command: str, folder: Path, console: Console) -> Result:
    """The result in `folder`; what is missing there is trained and evaluated."""
    from duo.report import Result

    if (folder / "result.json").exists():
        return Result.load(folder)
    from duo import stages
    from duo.data.module import TextData

    quieten()
    stages.device_of(recipe)  # impossible devices show before any work

    def say(stage: str, text: str) -> None:
        console.print(f"[bold]{stage}[/bold]  {text}")

    start = time.time()
    cache = cache_folder(recipe, folder)
    data = TextData(recipe.data, recipe.backbone.vocabulary, cache)
    say("data", f"{recipe.data.source} documents, prepared once in {cache / 'data'}")
    data.setup()
    identity = stages.backbone_digest(recipe, data)
    check_begun(folder, identity)
    trained = cache / "backbones" / identity[:16]
    backbone = stages.trained_backbone(recipe, data, trained, say)
    router = stages.trained_router(recipe, backbone, data, folder, say)
    scores = stages.evaluated(recipe, backbone, router, data, say)
    budget, size = router.spec.budget, recipe.data.batch_size * recipe.data.tokens
    result = Result(
        recipe=name,
        recipe_digest=recipe.digest,
        router=recipe.router["name"],
        budget={"big": budget.big, "skip": budget.skip},
        backbone={
            "digest": identity,
            "parameters": sum(backbone.parameter_counts().values()),
            "train_tokens": recipe.stage1.steps * size,
        },
        scores=scores.whole.pop("router", {}),
        baselines=scores.whole,
        subset=scores.subset,
        gap_closed=stages.gaps(scores),
        provenance=provenance(recipe.seed, stages.device_of(recipe), time.time() - start, command),
    )
    if is_chief():
        draw(result, {"stage 1": trained, "stage 3": folder}, folder / "figures")
        result.save(folder)
    return result


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


def check_begun(folder: Path, identity: str) -> None:
    """Notes the backbone that the folder's weights belong to.

    Raises:
        ValueError: it was another one when the run began: its documents have changed since.
    """
    mark = folder / "backbone.digest"
    if not mark.exists() and is_chief():
        with replacing(mark) as path:
            path.write_text(identity)
    elif mark.exists() and mark.read_text() != identity:
        raise ValueError(f"output={folder} was begun on other documents than are there now: choose another folder")


def cache_folder(recipe: Recipe, folder: Path) -> Path:
    """Where prepared data and trained backbones are kept."""
    from platformdirs import user_cache_path

    return folder / "cache" if recipe.cache == "none" else Path(recipe.cache or user_cache_path("duo"))


def draw(result: Result, stages: dict[str, Path], folder: Path) -> None:
    """Writes the figures of a run, given the folders of its stages' logs."""
    from duo import figures
    from duo.training.trainer import loss_curve

    curves = {stage: curve for stage, logs in stages.items() if (curve := loss_curve(logs))}
    if curves:
        figures.save(figures.training_loss(curves), folder / "training_loss.png")
    figures.save(figures.loss_against_budget(result), folder / "loss_against_budget.png")
    shares = {holdout: score.sequences.big_TL for holdout, score in (result.scores or result.subset["router"]).items()}
    figures.save(figures.big_share(shares), folder / "big_share.png")


def show(result: Result, folder: Path, console: Console) -> None:
    """The table, the figures and the folder."""
    from duo.report import gap_line, table

    holdouts = [*result.gap_closed]
    for holdout in holdouts:
        console.print(table(result, holdout))
    for holdout in holdouts:
        console.print(table(result, holdout, subset=True))
    for holdout in holdouts:
        console.print(gap_line(result, holdout))
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


def quieten() -> None:
    """Leaves out what Lightning says of devices and products, and warnings that are not a user's."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning|torch")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
