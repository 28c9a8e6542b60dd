"""Folders that duo writes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from duo.doctor.finding import Finding
from duo.storage.files import replacing

LEAST = 1 << 30  # free bytes: the default data and a few small backbones


def folders(cache: str | None) -> Iterator[Finding]:
    """The cache, the folder for outputs and the one for temporary files."""
    from duo.stages.cache import default_cache

    try:
        yield examine("cache", Path(cache) if cache else default_cache(), "give cache=DIR")
    except ValueError as error:  # no home
        yield Finding("cache", "none", str(error))
    yield examine("here", Path.cwd(), "start duo in a folder of yours, or give output=DIR")
    yield examine("temporary", Path(tempfile.gettempdir()), "set TMPDIR to another folder")


def examine(name: str, folder: Path, hint: str) -> Finding:
    """Whether a folder, or the nearest that there is above it, takes files and knows locks; nothing is left there."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".duo-doctor-", dir=there) as trial:
            with replacing(Path(trial) / "file") as path:
                path.write_text("written")
            _try_lock(Path(trial) / ".lock")
        free = shutil.disk_usage(there).free
    except (OSError, ValueError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Finding(name, f"{folder}: {reason}", f"{name}: {folder} cannot be written ({reason}): {hint}")
    wrong = f"{name}: {folder} has {free / 2**30:.2f} GiB free: make room, or {hint}" if free < LEAST else ""
    return Finding(name, f"{folder}, {free / 2**30:.1f} GiB free", wrong)


def _try_lock(path: Path) -> None:
    """Raises ValueError where two may hold one lock."""
    with FileLock(path):
        try:
            with FileLock(path, timeout=0):
                raise ValueError("it keeps no locks, so that two runs would spoil one another")
        except Timeout:
            return
