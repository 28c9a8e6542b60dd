"""python -m duo.plugins list | check NAME | new NAME: the routers that are installed, and a beginning for your own."""

from __future__ import annotations

import argparse
import functools
import keyword
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from duo.progress.start import speak
from duo.recipe import load
from duo.report.command import run_command
from duo.report.messages import plain_console
from duo.report.width import UNBOUNDED, width_of
from duo.routing import registry
from duo.storage.location import is_taken
from duo.testing import SKIP_SPEC, SPEC, is_bound, run_checks

TEMPLATE = Path(__file__).parent / "testing" / "template"  # in its paths and texts NAME stands for the router's name
WIDTH = 135  # of the table in a file, where nobody says another
NARROW = 110  # of a terminal that has no room for a column of packages
INDENT = " " * 18  # of what a check wanted and found


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status: 0 done, 1 a mistake or a failed check, 2 no such command."""
    flags_last = sorted(arguments, key=lambda argument: argument == "--skip")  # argparse wants lists in one piece
    options = parser().parse_args(flags_last)
    return run_command(lambda: int(options.command(options)))


def parser() -> argparse.ArgumentParser:
    """The three commands and their arguments."""
    whole = argparse.ArgumentParser(prog="python -m duo.plugins", description="Routers as plugins.")
    commands = whole.add_subparsers(required=True, metavar="list | check | new")
    listing = commands.add_parser("list", help="every installed router: its package, what it does, bound or deployable")
    listing.set_defaults(command=show)
    checking = commands.add_parser("check", help="whether a router does what every router must; exit status 0 if so")
    checking.add_argument("name", metavar="NAME", help="the router's name")
    checking.add_argument("settings", nargs="*", metavar="option=value", help="options of the router, as in a recipe")
    checking.add_argument("--skip", action="store_true", help="with three modules: some layers are to be skipped")
    checking.set_defaults(command=check)
    making = commands.add_parser("new", help="writes a package with a router that works, its test and a README")
    making.add_argument("name", metavar="NAME", help="the router's name")
    making.add_argument("--package", type=Path, metavar="DIR", help="where to write it (default: a folder called NAME)")
    making.set_defaults(command=new)
    return whole


def show(_: argparse.Namespace) -> int:
    """Lists the routers; one that is broken says how, and hides no other."""
    console = plain_console(soft_wrap=False)
    console.width = width_of(console, WIDTH)
    narrow = console.width < NARROW
    heads = ("router", "what it does", "kind") if narrow else ("router", "package", "what it does", "kind")
    table = Table(*heads, box=box.SIMPLE_HEAD)
    for name, points in registry.available().items():
        who = " and ".join(map(registry.package, points))
        table.add_row(*((f"{name}\n  {who}",) if narrow else (name, who)), *describe_kind(name))
    speak()
    console.print(table)
    return 0


def describe_kind(name: str) -> tuple[str, str]:
    """A router's first sentence, and whether it is a bound or deployable, as a small trial measures it."""
    try:
        router = registry.load(name)
        sentence = re.split(r"(?<=\.)\s", " ".join((router.__doc__ or "(it has no docstring)").split()))[0]
        return sentence, kind(is_bound(router))
    except Exception as error:  # a stranger's code
        return str(error) if isinstance(error, ValueError) else registry.describe_error(error), "broken"


def kind(bound: bool) -> str:
    """What the meter's finding is called."""
    return "bound" if bound else "deployable"


def check(options: argparse.Namespace) -> int:
    """Runs all checks on a router and says what fails, and why."""
    settings = [f"router.name={options.name}", *(f"router.{setting}" for setting in options.settings)]
    arguments = load("tiny", settings).router_options
    spec = SKIP_SPEC if options.skip else SPEC
    build = functools.partial(registry.build, options.name, options=arguments)
    router = build(spec)  # what cannot be built needs no checks
    budget = f"{spec.budget} of {spec.layers} layers"
    speak()
    print(f"{registry.describe(type(router))}, {budget}", flush=True)
    failed: list[str] = []
    for outcome in run_checks(build, spec):
        print(f"  {'ok    ' if outcome.error is None else 'FAILED'}  {outcome.check}", flush=True)
        if outcome.error is not None:
            print(_tell_failure(outcome.proves, outcome.error, known=outcome.error in failed), flush=True)
            failed.append(outcome.error)
    if failed:
        print(f"{len(failed)} checks failed{_tell_cause(failed)}")
        return 1
    sees = {"bound": "reads labels of the tokens it routes", "deployable": "routes without labels"}
    found = kind(is_bound(build, spec))
    print(f"all checks passed; {options.name} is {'a ' * (found == 'bound')}{found}: it {sees[found]}")
    return 0


def _tell_failure(wanted: str, found: str, known: bool) -> str:
    """What a check wanted and found, as wide as the terminal; of what another found already, that alone."""
    if known:
        return "          found:  the same as above"
    room = max(width_of(plain_console(), UNBOUNDED) - 1, 60)
    parts = {"wanted:": wanted, "found:": found}
    return "\n".join(
        textwrap.fill(text, room, initial_indent=f"          {about:8}", subsequent_indent=INDENT)
        for about, text in parts.items()
    )


def _tell_cause(errors: Sequence[str]) -> str:
    """That most of the failures are one, where they are."""
    most = max(errors, key=errors.count)
    return f", {errors.count(most)} of them for the same reason: mend that one first" if errors.count(most) > 2 else ""


def new(options: argparse.Namespace) -> int:
    """Writes a plugin package from the template.

    Raises:
        ValueError: the name is no lower-case identifier or is taken, or the folder holds something.
    """
    name, folder = options.name, options.package or Path(options.name)
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} cannot name a router: choose a lower-case identifier such as my_router")
    if points := registry.available().get(name):
        raise ValueError(
            f"router {name!r} exists already, in package {registry.package(points[0])}: choose another name"
        )
    if is_taken(folder):
        raise ValueError(f"{folder} exists and holds something: choose a new or empty folder with --package DIR")
    for source in sorted(TEMPLATE.rglob("*.txt")):  # so named that no tool takes the template for code
        path = folder / str(source.relative_to(TEMPLATE).with_suffix("")).replace("NAME", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.read_text(encoding="utf-8").replace("NAME", name), encoding="utf-8")
        print(path)
    print(
        f"Next:\n  pip install -e {folder}\n  python -m duo.plugins check {name}\n"
        f"  python -m duo.run recipe=tiny router.name={name}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
