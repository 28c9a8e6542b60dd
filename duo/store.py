"""Folders named by the digest of their content, at any fsspec location: what is there is whole, or is not seen."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from typing import Any, NoReturn

import fsspec

HEADS = {"entries": "result.json", "backbones": "backbone.json", "tokens": "tokens.json", "marks": "mark.json"}
"""Kinds of folders, and the file of each that names the others with their digests; its own digest names the folder."""

MOST = 1 << 30  # bytes of a file
NAME = re.compile(r"[a-z]+\.(json|yaml|safetensors)")


class Store:
    """Folders at an fsspec location (`DIR`, `s3://...`, `hf://...`, `sftp://...`, with its driver installed).

    Nothing is ever changed: what is added stands beside what is there, so that two people who add never conflict.

    Raises:
        ValueError: nothing can be reached at the location; from every method.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        with self._blaming("reached"):
            self._files, self._root = fsspec.url_to_fs(location, use_listings_cache=False)

    def digests(self, kind: str) -> list[str]:
        """Names of the folders of a kind that are whole, as far as their names say."""
        with self._blaming("read"):
            if not self._files.exists(f"{self._root}/{kind}"):
                return []
            found = [path.rstrip("/").rpartition("/")[2] for path in self._files.ls(f"{self._root}/{kind}", False)]
        return sorted(name for name in found if re.fullmatch("[0-9a-f]{64}", name))

    def find(self, kind: str, beginning: str) -> str:
        """The whole digest of the one folder whose name begins so.

        Raises:
            ValueError: there is none, or several.
        """
        found = [digest for digest in self.digests(kind) if beginning and digest.startswith(beginning)]
        if len(found) != 1:
            raise ValueError(f"{len(found)} {kind} begin with {beginning!r} in leaderboard.store={self.location}")
        return found[0]

    def head(self, kind: str, digest: str) -> dict[str, Any]:
        """The file that the folder is named after.

        Raises:
            ValueError: it is not there (half-written folders have none), was changed, or is no JSON object.
        """
        data = self._read(f"{kind}/{digest}/{HEADS[kind]}", 4 << 20)
        if sha256(data) != digest:
            raise ValueError(f"{kind}/{digest[:12]}/{HEADS[kind]} was changed: its digest is not its folder's name")
        try:
            values = json.loads(data, parse_constant=_refuse)
        except ValueError as error:
            raise ValueError(f"{kind}/{digest[:12]}/{HEADS[kind]} is no JSON: {error}") from error
        listed = values.get("files") if isinstance(values, dict) else None
        if not isinstance(listed, dict) or not all(NAME.fullmatch(name) for name in listed):
            raise ValueError(f"{kind}/{digest[:12]}/{HEADS[kind]} does not list its files")
        return values

    def file(self, kind: str, digest: str, name: str, most: int = MOST) -> bytes:
        """Another file of the folder, of at most so many bytes.

        Raises:
            ValueError: the head does not list it, or it is missing, was changed or is too large.
        """
        listed = self.head(kind, digest)["files"].get(name)
        if listed is None:
            raise ValueError(f"{kind}/{digest[:12]} has no file {name}")
        data = self._read(f"{kind}/{digest}/{name}", most)
        if sha256(data) != listed:
            raise ValueError(f"{kind}/{digest[:12]}/{name} was changed: its digest is not the one that is listed")
        return data

    def add(self, kind: str, head: dict[str, Any], files: dict[str, bytes]) -> str:
        """Adds a folder and returns its digest; the head is written last, so that a half-written one is never seen.

        Raises:
            ValueError: the location cannot be written; nothing of the folder is left.
        """
        listed = {name: sha256(data) for name, data in files.items()}
        top = json.dumps(head | {"files": listed}, indent=1, allow_nan=False).encode()
        digest = sha256(top)
        folder = f"{self._root}/{kind}/{digest}"
        with self._blaming("written"):
            if self._files.exists(f"{folder}/{HEADS[kind]}"):
                return digest
            try:
                self._files.makedirs(folder, exist_ok=True)
                for name, data in (*files.items(), (HEADS[kind], top)):
                    self._write(f"{folder}/{name}", data)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._files.rm(folder, recursive=True)
                raise
        return digest

    def _write(self, path: str, data: bytes) -> None:
        temporary = f"{path}.{uuid.uuid4().hex}"
        self._files.pipe_file(temporary, data)
        self._files.mv(temporary, path)

    def _read(self, path: str, most: int) -> bytes:
        with self._blaming("read"):
            try:
                data: bytes = self._files.cat_file(f"{self._root}/{path}", start=0, end=most + 1)
            except FileNotFoundError:
                raise ValueError(f"{path} is not in leaderboard.store={self.location}") from None
        if len(data) > most:
            raise ValueError(f"{path} is larger than {most >> 10} KiB")
        return data

    @contextlib.contextmanager
    def _blaming(self, done: str) -> Iterator[None]:
        """Whatever a file system raises becomes a ValueError that names the location."""
        try:
            yield
        except ValueError as error:
            if "leaderboard.store" in str(error):
                raise
            raise ValueError(f"leaderboard.store={self.location} cannot be {done}: {error}") from error
        except Exception as error:  # every driver has exceptions of its own
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ValueError(f"leaderboard.store={self.location} cannot be {done}: {reason}") from error


def sha256(data: bytes) -> str:
    """The digest of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
