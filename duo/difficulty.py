"""python -m duo.difficulty FILE|- [key=value ...]: which tokens of a text are hard, and which compute would help."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from duo.recipe import Recipe, load
from duo.report.command import run_command
from duo.report.messages import messages, plain_console
from duo.report.passage import About, write_page
from duo.storage.files import expand
from duo.storage.processes import is_chief

if TYPE_CHECKING:
    from duo.stages.passage import ReadText

USAGE = "python -m duo.difficulty FILE|- [tokens=2000] [output=PAGE.html] [recipe=router_budget6] [key=value ...]"
HELP = f"""{USAGE}

Writes one page that shows a text or source file (- is the standard input) token by token: what each token loses under
the small modules, the big ones, the recipe's router and the oracle; and its potential, what the oracle gains.

  tokens=2000             tokens that are read, from the beginning on (all: the whole file); the oracle searches twice
                          hundreds of patterns for each: at 6 of 12 layers, a minute a thousand on one core
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
        elif key == "recipe":
            found = found._replace(recipe=value)
        elif key == "output":
            found = found._replace(output=value)
        else:
            rest.append(setting)
    return found._replace(settings=tuple(rest))


def show_difficulty(request: Request) -> Path:
    """Reads the text, makes or loads what the recipe asks for, and writes the page.

    Raises:
        ValueError: a file that is no text, an impossible recipe, or a page that cannot be written.
    """
    text, page = read_text(request.file), _page(request)
    recipe = load(request.recipe, request.settings)
    from duo.stages.cache import open_cache  # Lightning takes seconds: mistakes show before
    from duo.stages.output import cache_of
    from duo.stages.passage import read_with_recipe
    from duo.stages.single import check_cached, check_single
    from duo.training.trainer import join_world, quieten

    check_single(recipe, f"recipe={request.recipe}")
    check_cached(recipe)
    quieten()
    device, cache = join_world(recipe.trainer), cache_of(recipe, page.parent)
    console = plain_console()
    with messages(console):
        open_cache(cache)
        found = read_with_recipe(recipe, text, request.file, request.tokens, cache, device)
        if is_chief():
            write_page(found.passage, _about(request, recipe, text, found), found.count_V, page)
            if not found.passage.tokens.whole:
                log.info("text  its first %s tokens alone are shown: give tokens=all for all", request.tokens)
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


def _page(request: Request) -> Path:
    """Where the page goes; raises ValueError where that is the text itself, or a folder."""
    file = Path("stdin") if request.file == "-" else expand(request.file)
    page = expand(request.output or f"{file.name}.difficulty.html")
    if page.is_dir():
        raise ValueError(f"output={page} is a folder: give a file, as in output={page / 'page.html'}")
    if page.exists() and request.file != "-" and os.path.samefile(page, file):
        raise ValueError(f"output={page} is the text itself: give another file")
    return page


def _about(request: Request, recipe: Recipe, text: str, found: ReadText) -> About:
    return About(
        name=request.file if request.file == "-" else Path(request.file).name,  # folders are nobody's business
        bytes=len(text.encode()),
        recipe=request.recipe,
        router=recipe.router["name"],
        backbone=found.backbone,
        budget=recipe.spec.budget._asdict(),
        context=recipe.data.tokens,
        search=found.search,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
