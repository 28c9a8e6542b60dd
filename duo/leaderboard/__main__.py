"""python -m duo.leaderboard submit RUN | show [ENTRY] | verify ENTRY | page DIR: results anyone can add and check."""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.filesize import decimal

from duo.leaderboard.board.board import STATUS
from duo.leaderboard.sealed.process import PATIENCE
from duo.progress import at
from duo.report.command import run_command
from duo.report.messages import messages, plain_console
from duo.storage.files import expand
from duo.storage.processes import launched_as
from duo.storage.scales import Scales
from duo.storage.shared import STORE, default_store, find
from duo.storage.store import HEADS, Store

log = logging.getLogger("duo.leaderboard")
SETTINGS = ("leaderboard.store", "cache")
PATIENCE_HELP = "most that a process without labels may take (default: an hour)"


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status: 0 done, 1 a mistake or an entry that is wrong, 2 no such command."""
    given = [argument for argument in arguments if argument.startswith(tuple(f"{name}=" for name in SETTINGS))]
    options = parser().parse_args([argument for argument in arguments if argument not in given])
    settings = dict(argument.split("=", 1) for argument in given)

    def work() -> int:
        launched_as()  # Lightning reads the variables as soon as it is imported
        from duo.training.trainer import quieten  # Lightning takes seconds, for which --help need not wait

        quieten()
        options.cache = expand(settings["cache"]) if settings.get("cache") else None  # the user's own
        options.store = Store(settings.get("leaderboard.store") or default_store())
        console = plain_console()
        with messages(console, stages=logging.WARNING):  # rows are made again: what is reused for them helps nobody
            return int(options.command(options))

    return run_command(work)


def parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    whole = argparse.ArgumentParser(
        prog="python -m duo.leaderboard",
        description="The shared leaderboard: rows that anyone can execute again.",
        epilog="Anywhere: leaderboard.store=DIR (or s3://..., hf://..., sftp://...; by default what "
        "DUO_LEADERBOARD_STORE says, the place for a location with a password, or the repository's leaderboard "
        "folder), cache=DIR.",
    )
    commands = whole.add_subparsers(required=True, metavar="submit | show | verify | page")
    submitting = commands.add_parser("submit", help="adds the rows of a finished run, after checking them")
    submitting.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    submitting.add_argument(
        "--rows", "--row", nargs="+", default=[], metavar="ROW", help="these alone, by name (default: all)"
    )
    submitting.add_argument("--dry-run", action="store_true", help="checks all, says what would be added, adds nothing")
    submitting.add_argument("--note", default="", help="your own words, shown beside the rows")
    submitting.add_argument("--backbone", default="default", metavar="NAME", help="what to call the run's backbone")
    submitting.add_argument("--patience", type=float, default=PATIENCE, metavar="SECONDS", help=PATIENCE_HELP)
    submitting.set_defaults(command=submit)
    showing = commands.add_parser("show", help="the board, by track, or what an entry is made of")
    showing.add_argument("entry", nargs="?", metavar="ENTRY", help="beginning of an entry's digest: that one alone")
    showing.add_argument("--track", default="", help="beginning of a track's digest, or its title")
    showing.add_argument("--format", default="table", choices=("table", "markdown", "csv", "json"))
    showing.add_argument("--no-passes", action="store_true", help="without rows whose deciding took extra passes")
    showing.set_defaults(command=show)
    verifying = commands.add_parser("verify", help="executes entries again; exit status 0 if all are verified")
    verifying.add_argument("entry", nargs="*", metavar="ENTRY", help="beginning of an entry's digest")
    verifying.add_argument("--all", action="store_true", help="every entry")
    verifying.add_argument("--retrain", action="store_true", help="trains the router again, too")
    verifying.add_argument("--mark", action="store_true", help="adds to the store that the entry was verified")
    verifying.add_argument("--yes", action="store_true", help="runs other people's packages without asking")
    verifying.add_argument("--patience", type=float, default=PATIENCE, metavar="SECONDS", help=PATIENCE_HELP)
    verifying.set_defaults(command=verify)
    paging = commands.add_parser("page", help="writes the board as one HTML file that needs nothing else")
    paging.add_argument("folder", type=Path, metavar="DIR", help="where to write index.html")
    paging.set_defaults(command=page)
    return whole


def submit(options: argparse.Namespace) -> int:
    """Adds the rows of a run."""
    from duo.leaderboard.submit import Submission
    from duo.stages.cache import default_cache, open_cache

    open_cache(cache := options.cache or default_cache())
    store = Scales(options.store.location) if options.dry_run else options.store
    submission = Submission(store, cache, options.note, options.backbone, options.patience)
    added, refused = submission.run(options.run, options.rows)
    if isinstance(store, Scales):
        for (kind, digest), weight in store.weights.items():
            print(f"would write  {kind}/{digest[:12]}, {decimal(weight)}")
        written = f"of {decimal(sum(store.weights.values()))} in all" if added else "as they are there already"
        print(f"{len(added)} entries would be added, {len(refused)} refused, {written}; nothing was written")
    else:
        print(f"{len(added)} entries added, {len(refused)} refused")
    return int(bool(refused))


def show(options: argparse.Namespace) -> int:
    """Prints the board; raises ValueError where there is none."""
    from duo.leaderboard.board.card import tell_entry
    from duo.leaderboard.board.text import choose, render, summarize_left_out
    from duo.leaderboard.board.tracks import build_board

    _check_there(options.store)
    if options.entry:
        print(tell_entry(options.store, find(options.store, options.entry, "entries")[1]), end="")
        return 0
    board = choose(build_board(options.store), options.track, not options.no_passes)
    print(render(board, options.format), end="")
    if options.format != "table":  # the table says it itself; the others go into files
        print("".join(f"{line}\n" for line in summarize_left_out(board)), end="", file=sys.stderr)
    return 0


def verify(options: argparse.Namespace) -> int:
    """Executes entries again, each in a process of its own; exit status 1 where one is not verified."""
    _check_there(options.store)
    every = options.store.digests("entries") if options.all else []
    # not what somebody is still writing
    finished = [digest for digest in every if options.store.holds("entries", digest, HEADS["entries"])]
    entries = finished or [find(options.store, beginning, "entries")[1] for beginning in options.entry]
    if not entries:
        raise ValueError(
            "there are none yet" if options.all else "which entry? Give the beginning of its digest, or --all"
        )
    if not options.yes:
        _ask_for(options.store, entries)
    if len(entries) == 1:
        return _verify(options, entries[0])
    flags = [flag for flag, on in (("--retrain", options.retrain), ("--mark", options.mark)) if on]
    patience = ["--patience", str(options.patience), "--yes"]  # it was asked above
    command = [sys.executable, "-m", "duo.leaderboard", "verify", *flags, *patience]
    place = os.environ | {STORE: options.store.location}  # a password in a command is seen by everyone on the machine
    # a router that crashes, or that changes what is imported, spoils no other entry
    codes = {}
    for number, entry in enumerate(entries, 1):
        log.info("verify  entry %s of %s, %s", number, len(entries), entry[:12])
        codes[entry] = subprocess.run([*command, entry], check=False, env=place).returncode
    for entry, code in codes.items():
        if code not in (0, 1):
            print(f"{entry[:12]}: its process ended with {code}, not verified", file=sys.stderr)
    wrong = sum(code != 0 for code in codes.values())
    print(f"{len(codes) - wrong} of {len(codes)} entries are verified")
    return int(wrong > 0)


def _ask_for(store: Store, entries: Sequence[str]) -> None:
    """Asks whether packages that are not duo's own, and that verifying runs, may be run.

    Raises:
        ValueError: they may not, or there is nobody to ask.
    """
    from duo.leaderboard.board.gains import OWN

    packages = sorted({package for entry in entries for package in _packages(store, entry)} - {OWN})
    if not packages:
        return
    runs = f"this runs code of {', '.join(packages)}, which is not duo's own, and may do here what you may do"
    if not sys.stdin or not sys.stdin.isatty():
        raise ValueError(f"{runs}: give --yes if you trust it")
    print(f"{runs}. Go on? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ValueError(f"{', '.join(packages)} was not run, and nothing verified")


def _packages(store: Store, entry: str) -> set[str]:
    """The packages whose code executing an entry runs: those that register its router's name here, unimported."""
    from duo.leaderboard.entry.schema import read_head
    from duo.routing.registry import available

    try:
        name = read_head(store.head("entries", entry), entry).row.router
    except ValueError:
        return set()  # verifying says what is wrong with it, and runs nothing
    return {point.dist.name if point.dist else "an unknown package" for point in available().get(name, [])}


def _verify(options: argparse.Namespace, digest: str) -> int:
    from duo.leaderboard.verify import verify

    try:
        with at(f"verifying {digest[:12]}"):
            wrong, other_source = verify(options.store, digest, patience=options.patience)
            if options.retrain and not wrong:  # costly, and idle where the weights are wrong already
                wrong, _ = verify(options.store, digest, retrain=True, patience=options.patience)
    except ValueError as error:
        print(f"{digest[:12]}: cannot be verified: {error}", file=sys.stderr)
        return 1
    for sentence in wrong:
        print(f"{digest[:12]}: {sentence}", file=sys.stderr)
    if other_source:
        print(f"{digest[:12]}: its router's source differs from the one here; the numbers are", end=" ")
        print("not equal" if wrong else "equal")
    level = STATUS[2 if options.retrain else 1]
    if not wrong:
        print(f"{digest[:12]}: {level}, verified")
        if options.mark:
            options.store.add("marks", {"entry": digest, "level": level}, {})
    return int(bool(wrong))


def page(options: argparse.Namespace) -> int:
    """Writes the page."""
    from duo.leaderboard.board.tracks import build_board
    from duo.leaderboard.page import write_page

    _check_there(options.store)
    print(write_page(build_board(options.store), options.folder))
    return 0


def _check_there(store: Store) -> None:
    if not store.exists():
        raise ValueError("there is nothing at leaderboard.store: python -m duo.leaderboard submit RUN makes it")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
