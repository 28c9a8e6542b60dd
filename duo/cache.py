"""python -m duo.cache where | list | prune: what duo keeps of earlier work, and how to be rid of it."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from rich.filesize import decimal

from duo.report.command import run_command
from duo.report.messages import plain_console
from duo.report.numbers import new_table
from duo.report.width import fit
from duo.stages.cache import KINDS, default_cache
from duo.storage.files import expand

DAY = 24 * 3600  # seconds
SHARDS = "shards"  # of streams: a folder of folders
MEANING = {
    "data": "documents, packed as tokens",
    "backbones": "weights of stage 1, its logs and checkpoint",
    "routers": "trained or calibrated routers",
    "rows": "scores of a router on the hold-outs",
    "traces": "routes and losses that figures are drawn of",
}


class Kept(NamedTuple):
    """One folder of the cache."""

    kind: str
    folder: Path
    size: int
    """Bytes."""
    used: float
    """When a file of it was last read or written, in seconds since 1970; file systems note a reading once a day."""


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status: 0 done, 1 a mistake, 2 no such command."""
    options = parser().parse_args(arguments)
    return run_command(lambda: int(options.command(options)))


def parser() -> argparse.ArgumentParser:
    """The three commands and their arguments."""
    whole = argparse.ArgumentParser(
        prog="python -m duo.cache",
        description="What duo keeps. All of it may be deleted: it is made again.",
    )
    commands = whole.add_subparsers(required=True, metavar="where | list | prune")
    where = commands.add_parser("where", help="the cache's folder")
    where.set_defaults(command=show_where)
    listing = commands.add_parser("list", help="how much there is of each kind, or the folders of one kind")
    listing.add_argument("kind", nargs="?", choices=KINDS)
    listing.set_defaults(command=show)
    pruning = commands.add_parser("prune", help="deletes what was not used for a while")
    pruning.add_argument("--days", type=float, default=30, help="for how long it was not used (default: %(default)s)")
    pruning.add_argument("--kind", choices=KINDS, help="of one kind alone (default: of all)")
    pruning.add_argument("--dry-run", action="store_true", help="says what would go, and deletes nothing")
    pruning.set_defaults(command=prune)
    for command in (where, listing, pruning):
        command.add_argument("--cache", metavar="DIR", help="another cache, as given to a run by cache=DIR")
    return whole


def show_where(options: argparse.Namespace) -> int:
    """Prints the folder alone, for use in other commands."""
    print(cache_of(options))
    return 0


def show(options: argparse.Namespace) -> int:
    """A line a kind, or a line a folder of one kind, those used last first."""
    kept = [*walk(cache_of(options))]
    if options.kind:
        view = new_table(f"{options.kind}: {MEANING[options.kind]}")
        for name, justify in (("folder", "left"), ("size", "right"), ("last used", "right"), ("what", "left")):
            view.add_column(name, justify=justify)  # type: ignore[arg-type]
        for one in sorted((one for one in kept if one.kind == options.kind), key=lambda one: -one.used):
            view.add_row(one.folder.name, decimal(one.size), tell_age(one.used), describe(one))
    else:
        view = new_table(str(cache_of(options)))
        for name, justify in (("kind", "left"), ("folders", "right"), ("size", "right"), ("what", "left")):
            view.add_column(name, justify=justify)  # type: ignore[arg-type]
        for kind in KINDS:
            sizes = [one.size for one in kept if one.kind == kind]
            view.add_row(kind, f"{len(sizes):,}", decimal(sum(sizes)), MEANING[kind])
    console = plain_console(soft_wrap=False)
    for part in fit([view], console.width):
        console.print(part)
    return 0


def prune(options: argparse.Namespace) -> int:
    """Deletes folders that nobody used for so many days, and that nobody works in.

    Raises:
        ValueError: a number of days below 0.
    """
    if not options.days >= 0:
        raise ValueError(f"--days {options.days:g}: give 0, which is all, or more")
    before = time.time() - options.days * DAY
    gone = 0
    for one in walk(cache_of(options)):
        if options.kind in (None, one.kind) and one.used <= before:
            if not is_free(one.folder):
                print(f"{one.folder}: a run is at work there, it stays")
                continue
            gone += one.size
            print(f"{'would delete' if options.dry_run else 'deleted'} {one.folder}, {decimal(one.size)}")
            if not options.dry_run:
                delete(one.folder)
    print(f"{decimal(gone)} {'would be' if options.dry_run else 'are'} free")
    return 0


def cache_of(options: argparse.Namespace) -> Path:
    """The cache that is asked about.

    Raises:
        ValueError: it is not there, or was made by something else.
    """
    folder = expand(options.cache) if options.cache else default_cache()
    if options.cache and not (folder / "layout").exists():
        raise ValueError(f"--cache {folder} holds no cache of duo's")
    return folder


def walk(cache: Path) -> Iterator[Kept]:
    """All folders of a cache, finished or half done."""
    for kind in KINDS:
        found = {*(cache / kind).glob("*"), *(cache / kind / SHARDS).glob("*")} - {cache / "data" / SHARDS}
        for folder in sorted(found):
            if folder.is_dir() and folder.name != "index":  # notes of what files were when they were read
                stats = [path.stat() for path in (folder, *folder.rglob("*")) if path.is_file()]
                used = max((max(stat.st_mtime, stat.st_atime) for stat in stats), default=folder.stat().st_mtime)
                yield Kept(kind, folder, sum(stat.st_size for stat in stats), used)


def describe(one: Kept) -> str:
    """What a row is of, or that something was left half done."""
    if one.folder.suffix == ".part":
        return "half done"
    row = one.folder / "row.json"
    if one.kind == "rows":
        return str(json.loads(row.read_text())["router"]) if row.exists() else "half done"
    return "half done" if (one.folder / "last.ckpt").exists() else ""


def tell_age(used: float) -> str:
    """How long ago, in whole days.

    >>> tell_age(time.time() - 3.5 * DAY)
    '3 days ago'
    """
    days = int((time.time() - used) / DAY)
    return "today" if days < 1 else f"{days} day{'s' if days > 1 else ''} ago"


def is_free(folder: Path) -> bool:
    """Whether nobody holds a folder's lock, which lies in it, or beside it where it comes by a rename."""
    for lock in (folder / ".lock", folder.with_name(f"{folder.name.removesuffix('.part')}.lock")):
        try:
            if lock.exists():
                FileLock(lock).acquire(timeout=0).lock.release()
        except Timeout:
            return False
    return True


def delete(folder: Path) -> None:
    """Deletes a folder; one that is deleted in part, being interrupted, has a name that nobody reads."""
    half_gone = folder.with_name(f"{folder.name.removesuffix('.part')}.part")
    if folder != half_gone:
        shutil.rmtree(half_gone, ignore_errors=True)
        folder.rename(half_gone)
    shutil.rmtree(half_gone)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
