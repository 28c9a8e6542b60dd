"""From documents to packed tokens, prepared once and kept in the cache."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset, DatasetDict, Features, Sequence, Value, disable_progress_bars, load_from_disk
from filelock import FileLock
from tokenizers import Tokenizer

from duo.data.config import DataConfig
from duo.data.documents import Split, split
from duo.data.tokenizer import END, train_tokenizer

FORMAT = 2  # raised by every change that alters what is prepared


class Digests(NamedTuple):
    """SHA-256 of a tokenizer and of packed tokens."""

    train: str
    """With the training tokens: what a backbone depends on."""
    whole: str
    """With all tokens: what routers and scores depend on."""


def prepare(config: DataConfig, vocabulary: int, cache: Path) -> Path:
    """The folder of the prepared tokens, made if the cache lacks it; it may be killed, and called by many at once.

    It holds `tokenizer.json`, `splits/` (a `datasets.DatasetDict` of packed sequences) and `digests.json` (of the
    tokenizer with the training tokens, and with all tokens).

    Raises:
        ValueError: see `split`; or a hold-out or calibration set is shorter than one sequence.
    """
    parts = split(config)
    folder = cache / "data" / _digest_of(config, vocabulary, parts)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # beside the folder, which comes by a rename
        if not folder.exists():  # asked under the lock: another may just have made it
            half_done = folder.with_suffix(".part")
            shutil.rmtree(half_done, ignore_errors=True)
            half_done.mkdir()
            _write(config, vocabulary, parts, half_done)
            half_done.rename(folder)
    return folder


def read(folder: Path) -> tuple[Tokenizer, dict[str, Dataset], Digests]:
    """Tokenizer, packed sequences by split, and their digests."""
    return (
        Tokenizer.from_file(str(folder / "tokenizer.json")),
        dict(load_from_disk(str(folder / "splits"))),
        Digests(**json.loads((folder / "digests.json").read_text())),
    )


def write(folder: Path, tokenizer: Tokenizer, tokens: dict[str, np.ndarray]) -> None:
    """Writes what `read` reads; `tokens` holds the packed sequences (N, T+1) of each split."""
    disable_progress_bars()
    splits, length = DatasetDict(), next(iter(tokens.values())).shape[1]
    features = Features({"tokens": Sequence(Value("int32"), length=length)})
    for name, packed in tokens.items():
        splits[name] = Dataset.from_dict({"tokens": list(packed)}, features=features)
    tokenizer.save(str(folder / "tokenizer.json"))
    splits.save_to_disk(str(folder / "splits"))
    (folder / "digests.json").write_text(json.dumps(digests_of(tokenizer, tokens)._asdict()))


def digests_of(tokenizer: Tokenizer, tokens: dict[str, np.ndarray]) -> Digests:
    """The digests of a tokenizer with the packed sequences (N, T+1) of each split, as int32."""
    train = hashlib.sha256(tokenizer.to_str().encode())
    # int32 whatever they were kept as: published tokens take two bytes where that is enough
    train.update(tokens["train"].astype(np.int32).tobytes())
    whole = train.copy()
    for name in sorted({*tokens} - {"train"}):
        whole.update(name.encode())
        whole.update(tokens[name].astype(np.int32).tobytes())
    return Digests(train.hexdigest(), whole.hexdigest())


def pack(tokenizer: Tokenizer, documents: Iterable[str], length: int) -> Iterator[np.ndarray]:
    """Documents one after another, an end token behind each, cut into sequences of `length`; the rest is left out."""
    end, rest = tokenizer.token_to_id(END), np.empty(0, dtype=np.int32)
    for chunk in _chunks(documents, 256):
        encoded = tokenizer.encode_batch_fast(chunk, add_special_tokens=False)
        rest = np.concatenate([rest, *(np.array([*document.ids, end], dtype=np.int32) for document in encoded)])
        whole = len(rest) // length * length
        yield from rest[:whole].reshape(-1, length)
        rest = rest[whole:]


def _write(config: DataConfig, vocabulary: int, parts: Split, folder: Path) -> None:
    tokenizer = train_tokenizer(parts.train, vocabulary)
    named = {"train": ("data.train", parts.train, 0)}
    for kind, sets, tokens in (
        ("holdouts", parts.holdouts, config.holdout_tokens),
        ("calibration", parts.calibration, config.calibration_tokens),
    ):
        named |= {f"{kind}.{name}": (f"data.{kind}.{name}", documents, tokens) for name, documents in sets.items()}
    found = {}
    for split_name, (key, documents, tokens) in named.items():
        most = -(-tokens // config.tokens) if tokens else None  # up, so that no fewer are scored than asked for
        packed = np.array([*itertools.islice(pack(tokenizer, documents, config.tokens + 1), most)], dtype=np.int32)
        if not len(packed):
            raise ValueError(
                f"{key} is shorter than one sequence of data.tokens={config.tokens} + 1 tokens: give more text"
            )
        # your own files may hold less; of builtin documents enough were cut for it
        if config.source == "builtin" and tokens and packed[:, 1:].size < tokens:
            raise ValueError(f"{key} holds {packed[:, 1:].size} tokens of the {tokens} asked for: lower data.*_tokens")
        found[split_name] = packed
    write(folder, tokenizer, found)


def _digest_of(config: DataConfig, vocabulary: int, parts: Split) -> str:
    """What a preparation depends on: the documents, and the settings that are no path."""
    # the documents stand in the digest themselves; the others are applied when tokens are read
    not_prepared = {"train", "holdouts", "calibration", "batch_size", "subset_sequences", "subset_tokens"}
    settings = {key: value for key, value in asdict(config).items() if key not in not_prepared}
    digest = hashlib.sha256(json.dumps([FORMAT, vocabulary, settings], sort_keys=True).encode())
    for name, documents in [("train", parts.train), *parts.calibration.items(), *parts.holdouts.items()]:
        digest.update(name.encode())
        for text in documents:
            digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()[:16]


def _chunks(items: Iterable[str], size: int) -> Iterator[list[str]]:
    chunk: list[str] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
