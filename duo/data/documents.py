"""The split of the documents: which text trains, which calibrates, which is held out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from duo.data.config import DataConfig, Part
from duo.data.hub import read_shard
from duo.data.readers import read_documents
from duo.data.shelf import Shelf
from duo.data.sources import Sources
from duo.progress import track
from duo.storage.location import one_line

BYTES_PER_TOKEN = 6  # more than a byte-pair token of text or code holds on average, so that a cut has tokens enough
NAMED = 3  # files that a message names


def split(config: DataConfig, sources: Sources, shelf: Shelf) -> dict[str, str]:
    """Reads the documents into parts of the shelf; the same for the same config and documents.

    Returns:
        The parts, `train` first, then `holdouts.NAME` and `calibration.NAME`, with the key that each one is of.

    Raises:
        ValueError: a file cannot be read or holds what is no text; a key has no document; nothing is left to train.
    """
    names = (_split_builtin if config.source == "builtin" else _split_files)(config, sources, shelf)
    least = config.train_bytes
    shelf.move("rest", shelf.enough("rest", least) if least else shelf.count("rest"), "train")
    return {name: f"data.{name}" for name in ("train", *names)}


def _split_builtin(config: DataConfig, sources: Sources, shelf: Shelf) -> list[str]:
    for domain, paths in sources.items():
        for path in track(paths, f"{domain} file"):
            _add_builtin(shelf, domain, Path(path))
        # hold-outs from the front: what is asked for calibration or training moves none of them
        for kind in ("holdouts", "calibration"):
            taken, size = config.taken(kind), (config.tokens + 1) * BYTES_PER_TOKEN
            count = shelf.enough(domain, taken.sequences, partial(_sequences, size=size, most=taken.each))
            shelf.move(domain, count, f"{kind}.{domain}")
        left = shelf.count(domain)
        if not left:
            asked = (
                f"data.holdout_tokens={config.holdout_tokens} and data.calibration_tokens={config.calibration_tokens}"
            )
            raise ValueError(f"{asked} leave no builtin {domain} to train on: lower them")
        shelf.move(domain, left, "rest")  # all of them mixed, so that train_bytes cuts text and code
    return [f"{kind}.{domain}" for kind in ("holdouts", "calibration") for domain in sources]


def _sequences(held: int, size: int, most: int) -> int:
    """The sequences of `size` bytes that may be taken of a document of `held` bytes."""
    return min(held // size, most)


def _split_files(config: DataConfig, sources: Sources, shelf: Shelf) -> list[str]:
    training = {part.key: part for part in config.parts}
    names = [key.removeprefix("data.") for key in sources if key not in training]
    # in the order of the sources, where hold-outs come first: a document that one of them holds trains nowhere
    for key, paths in sources.items():
        if key in training:
            _fill(shelf, "rest", key, paths, training[key].column, _needed_to_train(config, training[key]))
        else:
            name = key.removeprefix("data.")
            _fill(shelf, name, key, paths, config.column, _needed(config, name))
    if not config.calibration:
        least = shelf.enough("rest", (config.tokens + 1) * BYTES_PER_TOKEN)
        shelf.move("rest", max(least, -(-shelf.count("rest") // 50)), "calibration.train")  # 2 %, at least a sequence
        names.append("calibration.train")
    if not shelf.count("rest"):
        raise ValueError("data.train holds too few documents to calibrate on some: give more, or data.calibration")
    return names


def _fill(
    shelf: Shelf, part: str, key: str, paths: Sequence[Path | str], column: str, needed: tuple[float, float]
) -> None:
    """Puts into a part what its files hold, but for what is in another part already; of shards as much as is needed."""
    found = added = 0
    least, most = needed
    texts = (text for path in track(paths, f"file of {key}") for text in _read(path, key, column))
    for text in track(filter(str.strip, texts), "document"):
        new = shelf.add(part, text)
        found, added = found + 1, added + new
        least -= min(len(text.encode()), most) if new else 0
        if least <= 0:
            break
    if not found:
        more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
        named = ", ".join(map(str, paths[:NAMED])) + more
        raise ValueError(one_line(f"{key} holds no document: no text is in {named}: give others"))
    if not added:
        raise ValueError(f"{key} holds no document that is not in another hold-out or calibration set: give others")


def _read(path: Path | str, key: str, column: str) -> Iterator[str]:
    """The documents of a file, or of a shard, whose location is a string."""
    return read_shard(path, key, column) if isinstance(path, str) else read_documents(path, key, column)


def _needed(config: DataConfig, part: str) -> tuple[float, float]:
    """Bytes that a hold-out or calibration set needs, and those of one document that count: of a hub's; else all."""
    if config.source != "hub":
        return math.inf, math.inf
    taken, size = config.taken(part.partition(".")[0]), (config.tokens + 1) * BYTES_PER_TOKEN
    return taken.sequences * size, taken.each * size


def _needed_to_train(config: DataConfig, part: Part) -> tuple[float, float]:
    """The same of training documents that are prepared beforehand: of a hub's documents, or of a stream's."""
    if config.source != "hub" and not config.stream:
        return math.inf, math.inf
    sequences = -(-config.first_tokens // config.tokens)
    if not config.calibration:
        # the 2 % that calibrate, and what its last document holds more
        sequences += max(-(-sequences // 49), 1) + 1
    return sequences * (config.tokens + 1) * BYTES_PER_TOKEN * part.weight, math.inf


def _add_builtin(shelf: Shelf, domain: str, path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")  # a few files of the library are in other encodings
    if text.strip():
        shelf.add(domain, text)
