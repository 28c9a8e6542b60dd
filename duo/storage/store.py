"""Folders named by the digest of their content, at any fsspec location: what is there is whole, or is not seen."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from duo.storage.location import shown, shown_text

HEADS = {"entries": "result.json", "backbones": "backbone.json", "tokens": "tokens.json", "marks": "mark.json"}
"""Kinds of folders, and the file of each that names the others with their digests; its own digest names the folder."""

MOST_HEAD, MOST_FILE = 256 << 10, 1 << 30  # bytes
T = TypeVar("T")
# parts of paths: neither lets a slash or .. through
NAME, DIGEST = re.compile(r"[a-z]+\.(json|yaml|safetensors)"), re.compile("[0-9a-f]{64}")


class Unfinished(ValueError):
    """A folder without a head: it is being written, or whoever wrote it was stopped."""


class Unreachable(ValueError):
    """The location cannot be read or written, which says nothing of what lies there."""


class Store:
    """Folders at an fsspec location (`DIR`, `s3://...`, `hf://...`, `sftp://...`, with its driver installed).

    Nothing is ever changed: what is added stands beside what is there, so that two people who add never conflict.

    Args:
        location: where the folders are.
        changed: takes the sentence that names a changed file, which is then read all the same; by default an error.

    Raises:
        Unreachable: nothing can be reached at the location; from every method.
    """

    def __init__(self, location: str, changed: Callable[[str], object] | None = None) -> None:
        self.location, self._changed = location, changed or _raise
        self.shown = shown(location)
        with self._blaming("reached"):
            self._files, self._root = fsspec.url_to_fs(location)

    def exists(self) -> bool:
        """Whether anything is at the location."""
        with self._blaming("read"):
            self._files.invalidate_cache()  # drivers keep listings; others may have added since
            return bool(self._files.exists(self._root))

    def digests(self, kind: str) -> list[str]:
        """Names of the folders of a kind; some may be unfinished."""
        with self._blaming("read"):
            self._files.invalidate_cache()
            try:
                paths = self._files.ls(f"{self._root}/{kind}", detail=False)
            except FileNotFoundError:
                return []
        return sorted(name for path in paths if DIGEST.fullmatch(name := path.rstrip("/").rpartition("/")[2]))

    def sound(self, kind: str, read: Callable[[str], T]) -> Iterator[tuple[str, T]]:
        """The folders of a kind by digest, with what `read` makes of them; one that it raises ValueError of is skipped.

        Raises:
            Unreachable: from `read` too.
        """
        for digest in self.digests(kind):
            try:
                found = read(digest)
            except Unreachable:
                raise
            except ValueError:
                continue  # somebody else's, which is damaged
            yield digest, found

    def holds(self, kind: str, digest: str, name: str) -> bool:
        """Whether a folder has a file of that name."""
        with self._blaming("read"):
            return bool(self._files.isfile(f"{self._root}/{kind}/{digest}/{name}"))

    def head(self, kind: str, digest: str) -> dict[str, Any]:
        """The file that the folder is named after.

        Raises:
            Unfinished: it is not there.
            ValueError: it was changed, or is no JSON object of finite numbers that lists its files.
        """
        name = f"{kind}/{digest[:12]}/{HEADS[kind]}"
        try:
            data = self._read(kind, digest, HEADS[kind], MOST_HEAD)
        except FileNotFoundError:
            raise Unfinished(f"{name} is missing") from None
        if sha256(data) != digest:
            self._changed(f"{name} was changed: its digest is not its folder's name")
        try:
            values = json.loads(data, parse_constant=_refuse, parse_float=_finite)
        except (ValueError, RecursionError) as error:  # a stranger's JSON may be nested too deep
            raise ValueError(f"{name} is no JSON: {error}") from error
        listed = values.get("files") if isinstance(values, dict) else None
        if not isinstance(listed, dict) or not all(NAME.fullmatch(file) for file in listed):
            raise ValueError(f"{name} does not list its files")
        return values

    def file(self, kind: str, digest: str, name: str, head: dict[str, Any], most: int = MOST_FILE) -> bytes:
        """Another file of the folder, of at most so many bytes.

        Raises:
            ValueError: the head does not list it, or it is missing, was changed or is too large.
        """
        shown = f"{kind}/{digest[:12]}/{name}"
        listed = head["files"].get(name)
        if listed is None:
            raise ValueError(f"{shown} is not listed")
        try:
            data = self._read(kind, digest, name, most)
        except FileNotFoundError:
            raise ValueError(f"{shown} is missing") from None
        if sha256(data) != listed:
            self._changed(f"{shown} was changed: its digest is not the one that is listed")
        return data

    def add(self, kind: str, head: dict[str, Any], files: dict[str, bytes]) -> str:
        """Adds a folder and returns its digest; the head is written last, so that a half-written one is never seen.

        Raises:
            ValueError: the head is too large, or the location cannot be written.
        """
        listed = {name: sha256(data) for name, data in files.items()}
        # sorted: the same content has the same digest
        top = json.dumps(head | {"files": listed}, indent=1, sort_keys=True, allow_nan=False).encode()
        if len(top) > MOST_HEAD:
            raise ValueError(f"{HEADS[kind]} would be larger than {MOST_HEAD >> 10} KiB: shorten notes and options")
        self._put(kind, digest := sha256(top), files | {HEADS[kind]: top})
        return digest

    def copy(self, kind: str, digest: str, source: Store, leave_out: str = "") -> None:
        """Adds a folder of another store, byte for byte, but for a file that is left out, unless it is here.

        Raises:
            ValueError: a file is missing or was changed there, or the location cannot be written.
        """
        if not self.holds(kind, digest, HEADS[kind]):
            head = source.head(kind, digest)
            files = {name: source.file(kind, digest, name, head) for name in head["files"] if name != leave_out}
            self._put(kind, digest, files | {HEADS[kind]: source._read(kind, digest, HEADS[kind], MOST_HEAD)})

    def _put(self, kind: str, digest: str, files: dict[str, bytes]) -> None:
        """Writes a folder, its head last in `files`."""
        folder = f"{self._root}/{kind}/{digest}"
        with self._blaming("written"):
            self._make(folder)
            for name, data in files.items():
                self._write(f"{folder}/{name}", data)

    def _make(self, folder: str) -> None:
        """Makes a folder; not every driver forgives that somebody else makes one of its parents at the same time."""
        for _ in range(2):  # the store's folder, and the kind's in it
            with contextlib.suppress(Exception):
                self._files.makedirs(folder, exist_ok=True)
                return
            self._files.invalidate_cache()
        self._files.makedirs(folder, exist_ok=True)

    def _write(self, path: str, data: bytes) -> None:
        """Writes a file under another name first; somebody else may be writing the same."""
        temporary = f"{path}.{uuid.uuid4().hex}"
        try:
            self._files.pipe_file(temporary, data)
            self._files.mv(temporary, path)
        except BaseException:  # an interrupt leaves nothing half-written either
            with contextlib.suppress(Exception):
                self._files.rm(temporary)
            raise

    def _read(self, kind: str, digest: str, name: str, most: int) -> bytes:
        if not DIGEST.fullmatch(digest):
            raise ValueError(f"{digest[:70]!r} is no digest of {kind}: 64 digits from 0 to f")
        folder, shown = f"{self._root}/{kind}/{digest}", f"{kind}/{digest[:12]}/{name}"
        if isinstance(self._files, LocalFileSystem) and any(map(self._files.islink, (folder, f"{folder}/{name}"))):
            raise ValueError(f"{shown} is a link, which could lead anywhere")
        with self._blaming("read", shown):
            # one byte more than is allowed tells too large, whatever the size is said to be
            data: bytes = self._files.cat_file(f"{folder}/{name}", start=0, end=most + 1)
        if len(data) > most:
            raise ValueError(f"{shown} is larger than {most >> 10} KiB")
        return data

    @contextlib.contextmanager
    def _blaming(self, done: str, file: str = "") -> Iterator[None]:
        """Whatever a file system raises becomes Unreachable and names the location, but that a file is not there.

        What is wrong with `file` alone becomes a ValueError that names the file.
        """
        try:
            yield
        except FileNotFoundError:
            if done == "read":
                raise
            raise Unreachable(f"leaderboard.store={self.shown} cannot be {done}: no such place") from None
        except Exception as error:  # every driver has exceptions of its own
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            reason = shown_text(reason.replace(self.location, self.shown))  # drivers like to say where they were
            if file and isinstance(error, (IsADirectoryError, NotADirectoryError, PermissionError)):
                raise ValueError(f"{file} cannot be {done}: {reason}") from error
            raise Unreachable(f"leaderboard.store={self.shown} cannot be {done}: {reason}") from error


def sha256(data: bytes) -> str:
    """The digest of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def _raise(sentence: str) -> NoReturn:
    raise ValueError(sentence)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _refuse(text)
