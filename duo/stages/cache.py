"""The cache: what is made once is kept by the digest of all that it depends on, and reused."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from torch import nn

from duo.storage.files import remove_left_over, replacing
from duo.storage.processes import is_chief, is_distributed
from duo.storage.weights import check_finite, load_weights, save_weights

LAYOUT = 2  # raise it with every change of how digests in a cache are taken
KINDS = ("data", "backbones", "routers", "rows", "traces")

Module = TypeVar("Module", bound=nn.Module)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made(Generic[Module]):
    """A trained module, the folder of its weights and logs, and its identity: of a backbone, its weights' digest."""

    module: Module
    folder: Path
    digest: str


def default_cache() -> Path:
    """The user's cache.

    Raises:
        ValueError: there is none, for nobody knows the user's home.
    """
    try:
        folder = user_cache_path("duo")
    except RuntimeError:  # of newer platformdirs; older ones leave "~" as it is
        folder = Path("~")
    if not folder.is_absolute():
        raise ValueError("there is no cache, for HOME is not set: give cache=DIR, a folder you may write")
    return folder


def open_cache(folder: Path) -> None:
    """Marks a cache with the layout of its digests; says so where an older duo filled it, and leaves that as it is.

    Raises:
        ValueError: it cannot be written.
    """
    if not is_chief():
        return
    with _blaming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):  # another run may begin in the same cache
            _mark(folder)


@contextmanager
def _blaming(folder: Path) -> Iterator[None]:
    """What is wrong with a folder of the cache becomes a ValueError that names it and the way out."""
    try:
        yield
    # filelock raises NotImplementedError where a file system knows no locks
    except (OSError, NotImplementedError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"cache={folder} cannot be used: {reason}; give cache=DIR, a folder you may write") from error


def _mark(folder: Path) -> None:
    mark = folder / "layout"
    # layout 1 left no mark
    found = (
        mark.read_text().strip() if mark.exists() else "1" if any((folder / kind).exists() for kind in KINDS) else ""
    )
    if found and found != str(LAYOUT):
        log.warning("cache  %s was filled by another duo: what it holds is left as it is, and made anew", folder)
    if found != str(LAYOUT):
        with replacing(mark) as path:
            path.write_text(f"{LAYOUT}\n")


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Holds the folder's lock on the chief process; the others belong to it.

    Raises:
        ValueError: the folder cannot be written.
    """
    with _blaming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not is_chief():
        yield
        return
    lock = FileLock(folder / ".lock")
    with _blaming(folder):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("waiting  for another run that is at work in %s", folder)
            lock.acquire()
    remove_left_over(folder)
    try:
        yield
    finally:
        lock.release()


def finish(module: nn.Module, weights: Path) -> None:
    """Saves the weights, from one process, and drops the checkpoint that led to them."""
    check_finite(module)  # on every process, so that all of them stop
    if is_chief():
        save_weights(module, weights)
        (weights.parent / "last.ckpt").unlink(missing_ok=True)  # only now: killed before, it goes on from there


def load(module: nn.Module, weights: Path) -> None:
    """Loads the weights that the chief process saved, once it has."""
    if is_distributed():
        torch.distributed.barrier()
    load_weights(module, weights)  # also where it was just trained: new and reused are the same
