"""python -m duo.generate RUN|recipe=NAME [prompt=TEXT] [key=value ...]: text under a router, as it is written."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from duo.data.tokenizer import end_token, tokenizer_digest
from duo.inference.agreement import compare_with_whole_pass
from duo.inference.generate import Written, stream
from duo.inference.prompts import encode_prompts, pad
from duo.inference.sampling import Sampling
from duo.recipe import Recipe, load
from duo.report.command import run_command
from duo.report.messages import messages, plain_console
from duo.report.written import Screen, Totals, describe_agreement
from duo.storage.files import expand

if TYPE_CHECKING:
    from duo.stages.writer import Writer

USAGE = "python -m duo.generate RUN|recipe=NAME [prompt=TEXT] [key=value ...]"
HELP = f"""{USAGE}

Continues a text under a recipe's router and prints it as it comes, each token
in the colour of the share of big modules that ran for it (plain where that is
no terminal); at the end tokens a second, FLOPs and shares on standard error.

  RUN                   a finished run's folder: its weights as they lie there
  recipe=NAME           a recipe instead: what the cache lacks is trained first
  prompt=TEXT           what is continued (default: the standard input, as it
                        is); an empty one begins a document
  tokens=128            tokens that are written at most
  temperature=0.8       divides the logits; 0 takes the likeliest token always
  top_k=null            draws among so many likeliest tokens (null: among all)
  top_p=0.95            among the fewest likeliest whose probabilities reach it
  min_p=0               among those so many times as likely as the likeliest
  repetition_penalty=1  weakens tokens that are there already: 1.3 is much
  stop=TEXT             ends the text in front of it; several may be given
  stop_tokens=ID,ID     ends it at these tokens (default: the end of a document)
  sampling_seed=0       of the draws: the same seed writes the same text
  check=false           counts decisions that fall otherwise in one whole pass
  leaderboard.backbone=DIGEST and all other settings: python -m duo.run --help"""
SETTING = re.compile(r"[A-Za-z_][\w.]*=")  # a folder whose name looks so is given as ./a=b
MOST_BYTES = 1 << 20  # of a prompt: /dev/zero has no end

log = logging.getLogger("duo.generate")  # not __name__, which is __main__


class Options(Struct, frozen=True):
    """How much is written, and how."""

    tokens: int = 128
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop_tokens: tuple[int, ...] | None = None
    """None: the end of a document."""
    sampling_seed: int = 0
    check: bool = False

    def __post_init__(self) -> None:
        for key, least in (("tokens", 1), ("sampling_seed", 0)):
            if getattr(self, key) < least:
                raise ValueError(f"{key}={getattr(self, key)} must be {least} or more")
        _ = self.sampling  # raises where that is impossible

    @property
    def sampling(self) -> Sampling:
        """How the next token is drawn."""
        return Sampling(
            repetition_penalty=self.repetition_penalty, temperature=self.temperature, top_k=self.top_k,
            top_p=self.top_p, min_p=self.min_p,
        )  # fmt: skip


class Request(NamedTuple):
    """What was typed."""

    options: Options
    run: str | None
    recipe: str | None
    prompt: str | None
    """None: the standard input."""
    stop: tuple[str, ...]
    settings: tuple[str, ...]
    """The recipe's."""


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status: 0 done, 1 a mistake, 2 nothing to write with, 128 + N by signal N."""
    if {"--help", "-h"} & {*arguments}:
        print(HELP)
        return 0
    runs = [argument for argument in arguments if not SETTING.match(argument)]
    named = [argument for argument in arguments if argument.startswith("recipe=")]
    if len(runs) + bool(named) != 1:
        print(f"Which run, or which recipe? Type: {USAGE}\nMore: --help", file=sys.stderr)
        return 2

    def work() -> int:
        write(parse(runs[0] if runs else None, [argument for argument in arguments if argument not in runs]))
        return 0

    return run_command(work)


def parse(run: str | None, settings: Sequence[str]) -> Request:
    """What was typed; raises ValueError where a value means nothing."""
    texts, options = dict[str, str | None](recipe=None, prompt=None), dict[str, object]()
    stop, rest = list[str](), list[str]()
    for setting in settings:
        key, _, value = setting.partition("=")
        if key in texts:
            texts[key] = value
        elif key == "stop":
            stop.append(value)
        elif key in Options.__struct_fields__:
            options[key] = [part for part in value.strip("[]").split(",") if part] if key == "stop_tokens" else value
        else:
            rest.append(setting)
    if "" in stop:
        raise ValueError("stop= is empty, and every text begins with an empty string: leave it out")
    return Request(_convert(options), run, texts["recipe"], texts["prompt"], tuple(stop), tuple(rest))


def _convert(options: dict[str, object]) -> Options:
    try:
        return msgspec.convert(options, Options, strict=False)  # all that is typed is a string
    except msgspec.ValidationError as error:
        if error.__cause__:  # our own sentence
            raise ValueError(str(error.__cause__)) from error
        found = re.search(r"`(.+?)`.*\$\.(\w+)", str(error))  # "Expected `int`, got `str` - at `$.tokens`"
        assert found
        typed = options[found[2]]
        shown = ",".join(typed) if isinstance(typed, list) else typed
        raise ValueError(f"{found[2]}={shown} must be of type {found[1]}") from error


def write(request: Request) -> None:
    """Makes or loads what the text is written with, and shows it as it comes.

    Raises:
        ValueError: an impossible recipe, run or prompt, or a router that cannot write.
    """
    folder = None if request.run is None else expand(request.run)
    recipe, name = _recipe(request, folder)
    prompt = read_prompt() if request.prompt is None else request.prompt
    from duo.stages.cache import open_cache  # Lightning takes seconds: mistakes show before
    from duo.stages.output import cache_of
    from duo.stages.single import check_cached, check_single
    from duo.stages.writer import check_deployable, open_writer
    from duo.training.trainer import join_world, quieten

    check_single(recipe, name)
    if folder is None:
        check_cached(recipe)
        check_deployable(recipe)
    quieten()
    device, cache = join_world(recipe.trainer), cache_of(recipe, folder or Path())
    # the standard output is the text's
    console = plain_console(stderr=True)
    with messages(console):
        open_cache(cache)
        with contextlib.redirect_stdout(sys.stderr):  # what a router's code prints is no text
            writer = open_writer(recipe, folder, cache, device)
        for line in show(request, writer, prompt, recipe):
            console.print(line)


def _recipe(request: Request, folder: Path | None) -> tuple[Recipe, str]:
    if folder is None:
        assert request.recipe is not None
        return load(request.recipe, request.settings), f"recipe={request.recipe}"
    from duo.stages.writer import load_run

    return load_run(folder, request.settings), str(folder)


def read_prompt() -> str:
    """The standard input, as it is.

    Raises:
        ValueError: it is closed, a terminal, at which nobody may be typing, too large, or no text in UTF-8.
    """
    if not sys.stdin or sys.stdin.isatty():
        raise ValueError("there is no prompt: give prompt=TEXT, or a text on the standard input (prompt= begins one)")
    content = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"the prompt is larger than {MOST_BYTES:,} bytes: give a part of it")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"the prompt is no text in UTF-8: byte {error.start:,}") from error


def show(request: Request, writer: Writer, prompt: str, recipe: Recipe) -> list[str]:
    """Writes a text on the standard output; returns what is told of it."""
    (ids,) = encode_prompts([prompt], writer.tokenizer)
    end = end_token(writer.tokenizer)
    options, ends = request.options, () if end is None else (end,)
    coming = stream(
        writer.backbone, writer.router, [ids], options.tokens, options.sampling, tokenizer=writer.tokenizer,
        stop=request.stop, stop_tokens=ends if options.stop_tokens is None else options.stop_tokens,
        seed=options.sampling_seed,
    )  # fmt: skip
    if len(ids) + options.tokens > recipe.data.tokens:
        log.warning(
            "prompt  of %s tokens, and up to %s more: no sequence that the backbone was trained on is longer than "
            "data.tokens=%s, and behind that it may write worse", len(ids), options.tokens, recipe.data.tokens,
        )  # fmt: skip
    screen, written, begun = Screen(), list[Written](), time.perf_counter()
    try:
        for one in coming:
            if not written:  # only now: what cannot be continued is not shown
                screen.show_prompt(prompt)
            written.append(one)
            screen.show(one)
    finally:
        seconds = time.perf_counter() - begun
        if written:
            screen.end()
    lines = [str(Totals.of(written, seconds))]
    if options.check:
        lines.append(check(writer, ids, [one.token for one in written], options.sampling_seed))
    return lines


def check(writer: Writer, prompt: list[int], written: list[int], seed: int) -> str:
    """How the steps compare with one pass over the whole text, in one line."""
    tokens_1T = pad([prompt + written], writer.backbone.embedding.weight.device)
    digest = tokenizer_digest(writer.tokenizer)
    return describe_agreement(
        compare_with_whole_pass(writer.backbone, writer.router, tokens_1T, len(prompt), seed=seed, tokenizer=digest)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
