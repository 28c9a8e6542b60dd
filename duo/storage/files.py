"""Writing files so that nothing half-written is ever seen."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEFT_OVER = 24 * 3600  # seconds after which nobody writes at a file any more
SYSTEM = re.compile(r"\(os error (\d+)\)|\bcode: (\d+)")  # as libraries in Rust tell the system's errors


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there takes the name of `path` at the end, or is never seen.

    It is on the disk before it has the name, so that a power cut leaves the old file or the new one. Several may write
    the same path at once: each writes under a name of its own, and the last one stays.

    Raises:
        OSError: it cannot be written, whatever library was asked to; `path` is named, and nothing is left behind.
    """
    # beside it: a rename is whole within one file system
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    with naming(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(path)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)  # not reached after an error: the old file stays
        except BaseException:  # an interrupt leaves nothing behind either
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


@contextmanager
def making_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, which takes its name at the end, or is removed; for one writer at a time.

    Args:
        folder: is not there, or is empty.
    """
    half_done = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(half_done, ignore_errors=True)  # of a writer who was killed
    half_done.mkdir(parents=True)
    try:
        yield half_done
        if folder.exists():
            folder.rmdir()  # not every system renames onto an empty folder
        half_done.rename(folder)
    except BaseException:
        shutil.rmtree(half_done, ignore_errors=True)
        raise


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Whatever a library raises where the system refuses to write becomes an OSError that names `path`.

    Args:
        temporary: another name under which it is written; errors say `path` instead.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)) != temporary:
            raise  # names another file
        reason = os.strerror(error.errno) if error.errno else str(error)  # Arrow's own words repeat themselves
        raise _named(error.errno, reason, path) from error
    except Exception as error:
        if (found := SYSTEM.search(str(error))) is None:
            raise  # of something else than the disk
        number = int(found[1] or found[2])
        raise _named(number, os.strerror(number), path) from error


def _named(number: int | None, reason: str, path: Path) -> OSError:
    # made of a number and a reason it is of the right kind, PermissionError say
    return OSError(f"{path} cannot be written: {reason}") if number is None else OSError(number, reason, str(path))


def remove_left_over(folder: Path) -> None:
    """Removes what killed writers left in a folder; for who holds its lock, so that nobody writes there now."""
    for left in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            left.unlink()


def _remove_left_over(path: Path) -> None:
    """Removes what writers of the same path left who were killed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with contextlib.suppress(OSError):  # another writer may be just as tidy
            if time.time() - left.stat().st_mtime > LEFT_OVER:
                left.unlink()


def expand(path: str) -> Path:
    """A path as typed, `~` and `~user` being home folders.

    Raises:
        ValueError: there is no such user.
    """
    found = os.path.expanduser(path)
    if found.startswith("~"):
        raise ValueError(f"there is no user {path.partition('/')[0]}: write ./{path} for a file or folder of that name")
    return Path(found)
