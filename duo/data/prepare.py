"""From documents to packed tokens, prepared once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tokenizers import Tokenizer

from duo.data.config import DataConfig
from duo.data.documents import split
from duo.data.excerpts import take_excerpts
from duo.data.shelf import Shelf, open_shelf
from duo.data.sources import Sources, find_files, stamp
from duo.data.token_text import spells_text
from duo.data.tokenizer import read_tokenizer, tokenizer_digest, train_tokenizer
from duo.data.tokens import FORMAT, Packed, pack, write
from duo.progress import at, track
from duo.storage.files import making_folder, replacing

HELD = "held.json"  # digests of documents that train nothing
SETTLED = 2_000_000_000  # ns after which another change of a file has another time on every file system
# documents and tokenizer stand in the digest themselves; the others are applied when tokens are read
NOT_PREPARED = {"train", "holdouts", "calibration", "batch_size", "subset_sequences", "subset_tokens", "trust"}
NOT_PREPARED |= {"tokenizer", "eval_batch_size", "mix", "workers", "prepare", "lanes", "shuffle"}
LATER = {"train_tokens": 0, "stream": False}
"""Settings that no digest holds where they say what was so before they existed."""

log = logging.getLogger(__name__)


def prepare(config: DataConfig, vocabulary: int, cache: Path) -> Path:
    """The folder of the prepared tokens, made if the cache lacks it; it may be killed, and called by many at once.

    It holds `tokenizer.json`, `splits/` (a `datasets.DatasetDict` of packed sequences) and `digests.json` (of the
    tokenizer with the training tokens, and with all tokens); where a stream trains, `held.json` too. Beside it, a note
    of what the files were: where they are the same by name, size and time, they are not read again. Memory does not
    grow with the documents.

    Raises:
        ValueError: see `find_files` and `split`; or a hold-out or calibration set is shorter than one sequence.
        OSError: the cache cannot be written.
    """
    # before the documents: what is wrong with it shows at once
    given = read_tokenizer(config.tokenizer, vocabulary, "data.tokenizer") if config.tokenizer else None
    sources, begun = find_files(config), time.time_ns()
    files = stamp(sources)  # before they are read: what changes meanwhile is no longer what the note says
    note = cache / "data" / "index" / _digest_of(config, given or vocabulary, files.digest)
    with _hold(note):
        if config.trust and note.exists() and (known := cache / "data" / note.read_text()).is_dir():
            return known
        with open_shelf(note.with_suffix(".part"), config.seed) as shelf:
            folder = _prepare(config, given or vocabulary, sources, shelf, cache)
        # a file may change twice within one tick of its file system's clock, and look as if it had once
        if files.newest < begun - SETTLED:
            with replacing(note) as path:
                path.write_text(folder.name)
    return folder


def _prepare(config: DataConfig, using: Tokenizer | int, sources: Sources, shelf: Shelf, cache: Path) -> Path:
    keys = split(config, sources, shelf)
    folder = cache / "data" / _digest_of(config, using, _digest_parts(shelf, keys))
    with FileLock(f"{folder}.lock"):  # beside the folder, which comes by a rename
        if not folder.exists():  # asked under the lock: another may just have made it
            tokenizer = using if isinstance(using, Tokenizer) else _train_tokenizer(shelf, using)
            packed = {name: _counted(config, tokenizer, shelf, name, key) for name, key in keys.items()}
            with making_folder(folder) as half_done:
                write(half_done, tokenizer, packed)
                if config.stream:  # which reads documents again, and leaves these out
                    held = [digest.hex() for name in keys if name != "train" for digest in shelf.digests(name)]
                    (half_done / HELD).write_text(json.dumps(held))
    return folder


def _train_tokenizer(shelf: Shelf, vocabulary: int) -> Tokenizer:
    log.info("data  training a tokenizer of %s tokens, and packing the documents", f"{vocabulary:,}")
    with at("training the tokenizer"):  # which goes on when all documents are read
        texts = track(shelf.texts("train"), "document", shelf.count("train"))
        return train_tokenizer(texts, vocabulary)


def _counted(config: DataConfig, tokenizer: Tokenizer, shelf: Shelf, name: str, key: str) -> Iterator[Packed]:
    """A split's sequences; raises ValueError at their end where they are too few."""
    count = 0
    for row in _sequences(config, tokenizer, shelf, name):
        count += 1
        yield row
    if not count:
        raise ValueError(
            f"{key} is shorter than one sequence of data.tokens={config.tokens} + 1 tokens: give more text"
        )
    wanted = _rows(config) if name == "train" else config.taken(name.partition(".")[0]).sequences
    # your own files may hold less; of builtin documents enough were cut for it
    if count < wanted and name == "train" and config.train_tokens:
        log.warning("data  %s holds %s tokens of data.train_tokens=%s", key, count * config.tokens, config.train_tokens)
    elif config.source == "builtin" and name != "train" and count < wanted:
        raise ValueError(
            f"{key} holds {count * config.tokens} tokens of the {wanted * config.tokens} asked for: lower data.*_tokens"
        )


def _sequences(config: DataConfig, tokenizer: Tokenizer, shelf: Shelf, name: str) -> Iterator[Packed]:
    length = config.tokens + 1
    if name == "train":  # across the ends of documents, as in the models that the paper builds on
        rows = islice(pack(tokenizer, shelf.texts(name), length), _rows(config) or None)
        spelled = spells_text(tokenizer)
        return (Packed.of(row, -1, spelled) for row in rows)
    taken, join = config.taken(name.partition(".")[0]), config.source != "builtin"
    return take_excerpts(tokenizer, lambda: shelf.texts(name), length, taken.sequences, taken.each, join)


def _rows(config: DataConfig) -> int:
    """Training sequences that are asked for; 0: all."""
    return -(-config.first_tokens // config.tokens)


@contextmanager
def _hold(note: Path) -> Iterator[None]:
    """Keeps others from preparing the same documents meanwhile: they find them prepared."""
    note.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{note}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("data  waiting for another run that prepares the same documents")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _digest_of(config: DataConfig, using: Tokenizer | int, documents: str) -> str:
    """What a preparation depends on: the documents, the tokenizer or its size, and the settings that are no path."""
    settings: dict[str, Any] = {key: value for key, value in asdict(config).items() if key not in NOT_PREPARED}
    settings = {key: value for key, value in settings.items() if key not in LATER or value != LATER[key]}
    if config.mix:  # how much is read of which
        settings["mix"] = [[part.column, part.weight] for part in config.parts]
    what = tokenizer_digest(using) if isinstance(using, Tokenizer) else using
    return hashlib.sha256(json.dumps([FORMAT, what, settings, documents], sort_keys=True).encode()).hexdigest()[:16]


def _digest_parts(shelf: Shelf, names: dict[str, str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(json.dumps([name, shelf.count(name)]).encode())
        for document in shelf.digests(name):
            digest.update(document)
    return digest.hexdigest()
