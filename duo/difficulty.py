"""python -m duo.difficulty FILE|- [key=value ...]: which tokens of a text are hard, and which more compute would help."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from duo.recipe import Recipe, load
from duo.report.command import run_command
from duo.report.messages import messages
from duo.search.patterns import can_list, counts_of
from duo.storage.files import expand

if TYPE_CHECKING:
    from duo.evaluation.passage import Passage, Reader

USAGE = "python -m duo.difficulty FILE|- [tokens=2000] [output=PAGE.html] [recipe=router_budget6] [key=value ...]"
HELP = f"""{USAGE}

Writes one page that shows a text or source file (- is the standard input) token by token: what each token loses under
the small modules, the big ones, the recipe's router and the oracle; and its potential, what the oracle gains.

  tokens=2000             tokens that are read, from the beginning on (all: the whole file, about 2 ms a token and more)
  output=PAGE.html        the page (default: the file's name and .difficulty.html, in the present folder)
  recipe=router_budget6   whose backbone, budget and router; trained first if the cache lacks them
  leaderboard.backbone=DIGEST and every other setting are the recipe's: see python -m duo.run --help"""
TOKENS = 2000  # an oracle searches hundreds of patterns for each
MOST_BYTES = 16 << 20  # of a file: /dev/zero has no end
SETTING = re.compile(r"[A-Za-z_][\w.]*=")  # a file whose name looks so is given as ./a=b

log = logging.getLogger("duo.difficulty")  # not __name__, which is __main__


class Request(NamedTuple):
    """What was typed."""

    file: str
    recipe: str = "router_budget6"
    tokens: int | None = TOKENS
    """None: all."""
    output: str | None = None
    settings: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status: 0 done, 1 a mistake, 2 no file or several, 128 + N by signal N."""
    if {"--help", "-h"} & {*arguments}:
        print(HELP)
        return 0
    files = [argument for argument in arguments if not SETTING.match(argument)]
    if len(files) != 1:
        print(f"Which file? Type: {USAGE}\nMore: --help", file=sys.stderr)
        return 2

    def work() -> int:
        show_difficulty(parse(files[0], [argument for argument in arguments if argument not in files]))
        return 0

    return run_command(work)


def parse(file: str, settings: Sequence[str]) -> Request:
    """What was typed; raises ValueError where `tokens` is no number."""
    found, rest = Request(file), []
    for setting in settings:
        key, _, value = setting.partition("=")
        if key == "tokens":
            if value != "all" and not (value.isdecimal() and int(value) >= 2):
                raise ValueError(f"tokens={value} must be a number from 2 on, or all")
            found = found._replace(tokens=None if value == "all" else int(value))
        elif key in ("recipe", "output"):
            found = found._replace(**{key: value})
        else:
            rest.append(setting)
    return found._replace(settings=tuple(rest))


def show_difficulty(request: Request) -> Path:
    """Reads the text, makes or loads what the recipe asks for, and writes the page.

    Raises:
        ValueError: a file that is no text, an impossible recipe, or a page that cannot be written.
    """
    text, recipe, page = read_text(request.file), _recipe(request), _page(request)
    from duo.training.trainer import join_world, quieten  # Lightning takes seconds: mistakes show before

    quieten()
    device = join_world(recipe.trainer)
    console = Console(emoji=False, highlight=False, markup=False, soft_wrap=True)
    with messages(console):
        _write(request, recipe, text, page, str(device))
    console.print(str(page))
    return page


def read_text(file: str) -> str:
    """The text of a file, or of the standard input for `-`.

    Raises:
        ValueError: it cannot be read, is too large, empty, or no text in UTF-8.
    """
    name = "the standard input" if file == "-" else file
    try:
        if file == "-":
            content = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with expand(file).open("rb") as opened:
                content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}; give a text file, or - for the input") from error
    if len(content) > MOST_BYTES:
        raise ValueError(f"{name} is larger than {MOST_BYTES:,} bytes: give a part of it")
    if not content:
        raise ValueError(f"{name} is empty: give a text")
    if 0 in content:
        raise ValueError(f"{name} is no text: byte {content.index(0):,} is NUL; give a text in UTF-8")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is no text in UTF-8: byte {error.start:,}; convert it (iconv -t utf-8)") from error


def _recipe(request: Request) -> Recipe:
    recipe = load(request.recipe, request.settings)
    if recipe.compare.names:
        raise ValueError(f"recipe={request.recipe} compares rows: give a recipe of one router")
    if recipe.cache == "none":
        raise ValueError("cache=none would train anew for every page: give cache=DIR")
    recipe.new_router()  # impossible options show before any work
    return recipe


def _page(request: Request) -> Path:
    """Where the page goes; raises ValueError where that is the text itself, or a folder."""
    file = Path("stdin") if request.file == "-" else expand(request.file)
    page = expand(request.output or f"{file.name}.difficulty.html")
    if page.is_dir():
        raise ValueError(f"output={page} is a folder: give a file, as in output={page / 'page.html'}")
    if page.exists() and request.file != "-" and os.path.samefile(page, file):
        raise ValueError(f"output={page} is the text itself: give another file")
    return page


def _write(request: Request, recipe: Recipe, text: str, page: Path, device: str) -> None:
    import torch

    from duo import stages
    from duo.evaluation.difficulty import start_patterns
    from duo.evaluation.passage import Reader, read_passage
    from duo.report.passage import About, write_page
    from duo.stages.cache import open_cache
    from duo.stages.output import cache_of
    from duo.stages.stage3 import calibration_trials

    open_cache(cache := cache_of(recipe, page.parent))
    source = stages.backbone_source(recipe)
    data = source.open_data(cache)
    backbone, router = stages.train_or_load(recipe, source, data, torch.device(device))
    starts, count_CM = None, counts_of(recipe.backbone.layers, recipe.spec.budget)
    if listed := can_list(count_CM):
        log.info("oracle  every pattern of %s, on every token", recipe.spec.budget)
    else:
        log.info("oracle  %s has too many patterns to list: local search", recipe.spec.budget)
        starts = start_patterns(calibration_trials(backbone.module, data, recipe.seed), count_CM)
    reader = Reader(
        backbone.module, router.module, data.tokenizer, recipe.data.tokens, recipe.data.batch_size, recipe.seed,
        starts, lambda done, of: log.info("oracle  %s of %s windows", done, of),
    )  # fmt: skip
    passage = read_passage(reader, text, request.file, request.tokens)
    about = About(
        name=request.file,
        bytes=len(text.encode()),
        recipe=request.recipe,
        router=recipe.router["name"],
        backbone=backbone.digest,
        budget=recipe.spec.budget._asdict(),
        context=recipe.data.tokens,
        search=None if listed else "local",
    )
    write_page(passage, about, data.count_tokens("train"), page)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
