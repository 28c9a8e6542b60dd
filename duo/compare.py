"""python -m duo.compare RUN RUN ...: finished runs beside one another, on the same tokens."""

from __future__ import annotations

import os
import re
import shlex
import string
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from duo.report.command import run_command
from duo.report.messages import messages, plain_console
from duo.storage.files import expand, making_folder
from duo.storage.location import is_taken, shown_command

if TYPE_CHECKING:
    from rich.table import Table

    from duo.evaluation.comparison import Comparison
    from duo.evaluation.finished import Finished

USAGE = "python -m duo.compare [NAME=]RUN [NAME=]RUN ... [minus=ROW] [output=FOLDER] [--markdown | --csv]"
HELP = f"""{USAGE}

Puts the rows of finished runs beside one another: losses, paired differences with intervals, gap closed, costs. All
runs must have been scored on the same tokens; a row that is the same in several runs stands there once.

  RUN              the folder of a finished run, of one router or of several; or an entry of the leaderboard, by the
                   beginning of its digest
  NAME=RUN         calls the run so (default: A, B, ...): rows of one name in several runs are told apart by it
  minus=ROW        the row that is subtracted from all, as the table calls it; may be given several times
                   (default: the first run's own router; of a comparison, the first row that it subtracts itself)
  group=GROUP      of comparisons that go over several settings, one group alone, as in group=budget.big=4
  output=FOLDER    writes result.json, sequences.safetensors (docs/results.md) and figures/ there: a new or empty folder
  --markdown       tables as Markdown
  --csv            numbers as CSV, a line for each row, hold-out and part of it
  leaderboard.store=DIR   where entries are looked up, as of python -m duo.run"""
SETTING = re.compile(r"([A-Za-z_][\w.-]*)=(.+)", re.DOTALL)  # a folder whose name looks so is given as ./a=b
KEYS = ("output", "group", "leaderboard.store")
FORMATS = ("--markdown", "--csv")


class Request(NamedTuple):
    """What was typed."""

    runs: list[tuple[str, str]]
    """What each is called, and its folder or digest."""
    minus: list[str]
    settings: dict[str, str]
    """By key, of KEYS."""
    format: str
    """One of FORMATS, or nothing: tables for the terminal."""


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status: 0 done, 1 a mistake, 2 fewer than two runs, 128 + N by signal N."""
    if {"--help", "-h"} & {*arguments}:
        print(HELP)
        return 0
    unknown = [argument for argument in arguments if argument.startswith("-") and argument not in FORMATS]
    if unknown or len(parse(arguments).runs) < 2:
        print(f"Which runs, two or more? Type: {USAGE}\nMore: --help", file=sys.stderr)
        return 2

    def work() -> int:
        compare(parse(arguments), shlex.join(["python", "-m", "duo.compare", *arguments]))
        return 0

    return run_command(work)


def parse(arguments: Sequence[str]) -> Request:
    """What was typed; runs without a name are called A, B, ... in order."""
    found = Request([], [], {}, next((argument for argument in arguments if argument in FORMATS), ""))
    for argument in arguments:
        typed = SETTING.fullmatch(argument)
        key, value = typed.groups() if typed else ("", argument)
        if key in KEYS:
            found.settings[key] = value
        elif key == "minus":
            found.minus.append(value)
        elif argument not in FORMATS:
            found.runs.append((key or _letter(len(found.runs)), value))
    return found


def _letter(number: int) -> str:
    return string.ascii_uppercase[number] if number < len(string.ascii_uppercase) else f"R{number + 1}"


def compare(request: Request, command: str = "") -> Comparison:
    """Reads the runs, shows them beside one another, writes what is asked for, and returns it.

    Raises:
        ValueError: a run that cannot be read or compared, or an output that holds something.
    """
    _check_distinct(request.runs)
    folder = expand(request.settings["output"]) if "output" in request.settings else None
    if folder is not None and is_taken(folder):
        raise ValueError(f"output={folder} holds something already: give a new or empty folder")
    from duo.evaluation.finished import choose_groups  # torch and Lightning take seconds: mistakes show before
    from duo.evaluation.several import compare_runs
    from duo.kept.runs import open_finished
    from duo.report.several import render_several

    store, group = (request.settings.get(key) for key in ("leaderboard.store", "group"))
    opened = [open_finished(what, label, store) for label, what in request.runs]
    runs = choose_groups(opened, group)
    comparison = _with_provenance(compare_runs(runs, request.minus), runs, command)
    gone = dict.fromkeys(name for run in opened for name in run.groups if name not in comparison.groups)
    left_out = [] if group or "" in comparison.groups else [*gone]
    console = plain_console()
    _show(render_several(runs, comparison, left_out), comparison, request.format, console)
    if folder is not None:
        with messages(plain_console(stderr=True)):
            write(runs, comparison, folder)
    if folder is not None and not request.format:
        for path in (*sorted(folder.glob("figures/*.png")), folder / "result.json"):
            console.print(str(path))
    return comparison


def _check_distinct(runs: Sequence[tuple[str, str]]) -> None:
    """Raises ValueError where two runs have one name or are one folder."""
    labels, places = [label for label, _ in runs], [os.path.realpath(expand(what)) for _, what in runs]
    for number, (label, what) in enumerate(runs):
        if label in labels[:number]:
            raise ValueError(f"two runs are called {label}: give one of them another name, as in new={what}")
        if places[number] in places[:number]:
            raise ValueError(f"{what} is given twice: give two runs")


def _with_provenance(comparison: Comparison, runs: Sequence[Finished], command: str) -> Comparison:
    """The comparison with what it is made of."""
    from msgspec import structs

    from duo.evaluation.provenance import commit
    from duo.recipe import digest

    made = {run.label: {"run": run.where, "recipe": run.recipe, "digest": run.digest} | run.provenance for run in runs}
    about = {"commit": commit(), "command": shown_command(command), "runs": made}
    identity = digest([[run.label, run.digest] for run in runs])
    return structs.replace(comparison, recipe_digest=identity, provenance=about)


def _show(parts: Iterable[Table | str], comparison: Comparison, format: str, console: Console) -> None:
    from duo.kept.results import table_of
    from duo.report.markdown import harmless, to_markdown
    from duo.report.width import print_fitting

    if format == "--csv":
        table = table_of(comparison).map(lambda value: harmless(value) if isinstance(value, str) else value)
        print(table.to_csv(index=False), end="")
    elif format == "--markdown":
        print(to_markdown(parts), end="")
    else:
        print_fitting(parts, console)


def write(runs: Sequence[Finished], comparison: Comparison, folder: Path) -> None:
    """Writes numbers and figures into a new or empty folder: all of them, or nothing."""
    from duo.evaluation.format import save_struct
    from duo.report.figures import draw_each
    from duo.report.several import several_pictures

    with making_folder(folder) as half_done:
        save_struct(comparison, half_done, "result.json")
        draw_each(several_pictures(runs, comparison), half_done)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
