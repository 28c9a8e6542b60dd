"""python -m duo.doctor [cache=DIR]: what this machine is, and whether duo can work on it; for bug reports."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence

from duo.doctor import launch, machine, places, plugins, trial
from duo.doctor.finding import Finding
from duo.routing.registry import describe_error
from duo.storage.location import shown_text
from duo.storage.memory import end_quickly

WIDTH = 16  # of the names


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status: 0 all is well, 1 something is wrong, 2 no such option."""
    cache = parser().parse_args(arguments).cache
    end_quickly()
    probes: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": machine.versions,
        "machine": machine.machine,
        "devices": machine.devices,
        "processes": lambda: launch.processes(os.environ),
        "folders": lambda: places.folders(cache),
        "routers": plugins.routers,
        "terminal": lambda: machine.terminal(sys.stdout.encoding),
        "self-test": trial.self_test,
    }
    wrong: list[str] = []
    for title, probe in probes.items():
        say(title)
        for finding in examine(title, probe):
            say(lines_of(finding))
            wrong += [finding.wrong] * bool(finding.wrong)
    say("\nall is well" if not wrong else f"\n{len(wrong)} wrong:")
    for sentence in wrong:
        say(f"  {sentence}")
    return int(bool(wrong))


def parser() -> argparse.ArgumentParser:
    """The command and its one argument."""
    whole = argparse.ArgumentParser(
        prog="python -m duo.doctor",
        description="Tells what this machine is and whether duo can work on it; paste it into a bug report. Of the "
        "environment it shows the variables that number processes alone. Exit status 0: all is well.",
    )
    whole.add_argument("cache", nargs="?", type=_setting, metavar="cache=DIR", help="the cache, if not the user's own")
    return whole


def _setting(argument: str) -> str:
    key, _, value = argument.partition("=")
    if key != "cache" or not value:
        raise argparse.ArgumentTypeError(f"{argument!r} is not cache=DIR")
    return value


def examine(title: str, probe: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a probe finds; one that fails is a finding itself and ends no other."""
    try:
        yield from probe()
    except (Exception, SystemExit) as error:  # whatever a machine is like
        yield Finding(title, "cannot be told", f"{title} cannot be told: {describe_error(error)}; please report it")


def lines_of(finding: Finding) -> str:
    """A finding; what a terminal has no room for goes on below its own beginning."""
    room = shutil.get_terminal_size().columns - 1 if sys.stdout.isatty() else 10_000
    # nothing is broken within a word: paths are to be copied
    return textwrap.fill(
        finding.found, max(room, 2 * WIDTH + 8), initial_indent=f"  {finding.name:{WIDTH}}  ",
        subsequent_indent=" " * (WIDTH + 4), break_long_words=False, break_on_hyphens=False,
    ) or f"  {finding.name}"  # fmt: skip


def say(text: str) -> None:
    """Prints a line in whatever encoding there is, without logins."""
    encoding = sys.stdout.encoding or "ascii"
    print(shown_text(text).encode(encoding, "backslashreplace").decode(encoding), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
