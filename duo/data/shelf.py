"""Documents on disk, each of them once: they are split and put in order without being in memory."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE documents (id INTEGER PRIMARY KEY, digest BLOB UNIQUE, part TEXT, bytes INTEGER);
CREATE INDEX parts ON documents (part, digest);
CREATE TABLE texts (id INTEGER PRIMARY KEY, text BLOB);
BEGIN;
"""  # nothing is ever committed: a shelf does not outlive its process
LARGEST = 900_000_000  # SQLite keeps no more than 1e9 bytes in a row


def document_digest(data: bytes, seed: int) -> bytes:
    """SHA-256 of a document with a seed, by which a shelf knows it."""
    return hashlib.sha256(f"{seed}:".encode() + data).digest()


class Shelf:
    """Parts by name, each a sequence of documents; no document is in two parts, or twice in one.

    Args:
        file: where the documents are kept; it must not exist.
        seed: of the order of a part, which depends on it and on the documents alone.
    """

    def __init__(self, file: Path, seed: int) -> None:
        self._seed, self._added = seed, 0
        # no locks: the file is this process's own, and some network file systems have none; any thread: tokenizers
        # take the documents in theirs, one after another
        where = f"{file.absolute().as_uri()}?nolock=1"
        self._database = sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False)
        self._database.executescript(TABLES)

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def add(self, part: str, text: str) -> bool:
        """Puts a document into a part, unless one of the parts has it already; returns whether it did.

        Args:
            part: its name.
            text: the document.
        """
        data = text.encode()
        if len(data) > LARGEST:
            raise ValueError(f"a document of {len(data)} bytes is too large: split it into some of {LARGEST} at most")
        digest = document_digest(data, self._seed)
        row = (self._added + 1, digest, part, len(data))
        if not self._database.execute("INSERT OR IGNORE INTO documents VALUES (?, ?, ?, ?)", row).rowcount:
            return False
        self._added += 1
        self._database.execute("INSERT INTO texts VALUES (?, ?)", (self._added, data))
        return True

    def move(self, part: str, count: int, to: str) -> None:
        """Puts the first documents of a part into another one."""
        where, values = "part = ?", [part]
        query = "SELECT digest FROM documents WHERE part = ? ORDER BY digest LIMIT 1 OFFSET ?"
        if behind := self._database.execute(query, (part, count)).fetchone():
            where, values = "part = ? AND digest < ?", [part, *behind]
        self._database.execute(f"UPDATE documents SET part = ? WHERE {where}", (to, *values))

    def count(self, part: str) -> int:
        """How many documents a part has."""
        return self._database.execute("SELECT count(*) FROM documents WHERE part = ?", (part,)).fetchone()[0]

    def enough(self, part: str, least: int, worth: Callable[[int], int] = int) -> int:
        """How many of the first documents of a part hold at least so much; all where they hold less.

        Args:
            worth: what a document of so many bytes holds; by default the bytes.
        """
        held = count = 0
        for (size,) in self._database.execute("SELECT bytes FROM documents WHERE part = ? ORDER BY digest", (part,)):
            if held >= least:
                break
            held, count = held + worth(size), count + 1
        return count

    def texts(self, part: str) -> Iterator[str]:
        """The documents of a part, in order."""
        # a cross join takes the tables as they stand: texts are looked up in the order of the documents
        query = "SELECT text FROM documents CROSS JOIN texts USING (id) WHERE part = ? ORDER BY digest"
        return (text.decode() for (text,) in self._database.execute(query, (part,)))

    def digests(self, part: str) -> Iterator[bytes]:
        """SHA-256 of each document of a part with the seed, in order."""
        query = "SELECT digest FROM documents WHERE part = ? ORDER BY digest"
        return (digest for (digest,) in self._database.execute(query, (part,)))


@contextmanager
def open_shelf(folder: Path, seed: int) -> Iterator[Shelf]:
    """An empty shelf in a folder of its own, which goes with it.

    Raises:
        OSError: the folder cannot be written; it is named.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    folder.mkdir(parents=True)
    try:
        shelf = Shelf(folder / "documents", seed)
        try:
            yield shelf
        finally:
            shelf.close()
    except sqlite3.OperationalError as error:  # a full disk has no exception of its own
        raise OSError(f"{folder} cannot be written: {error}: free some space, or set cache=FOLDER") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
