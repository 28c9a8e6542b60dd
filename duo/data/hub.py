"""Documents of a data set of the hub: its shards, and their texts, streamed; what fails is tried again."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath

import fsspec

from duo.data.readers import READERS, Piece
from duo.storage.files import expand
from duo.storage.location import one_line

WAITS = (1, 4, 16, 60)
"""Seconds between one try and the next."""
PACKED = (".gz", ".bz2", ".xz", ".zst")
NAMED = 8  # splits that a message names

log = logging.getLogger(__name__)


def find_shards(asked: str, key: str) -> list[str]:
    """The shards of a split of a data set, in order: locations that fsspec opens, on the hub of one revision.

    Args:
        asked: NAME, NAME:CONFIG, NAME:CONFIG:SPLIT or NAME::SPLIT; NAME is on the hub, or a folder as `datasets` reads
            one; without a split it is `train`.
        key: the setting that names it.

    Raises:
        ValueError: there is no such data set, config or split, no way to the hub, or a shard is of an unknown kind.
    """
    name, config, split = (*asked.split(":"), "", "")[:3]
    if asked.count(":") > 2 or not name:
        raise ValueError(f"{key}: {asked!r} is no data set: write NAME, NAME:CONFIG or NAME:CONFIG:SPLIT")
    files = _find_files(str(expand(name)) if expand(name).is_dir() else name, config, f"{key}: {asked}")
    if (split or "train") not in files:
        known = ", ".join([*files][:NAMED]) or "none"
        raise ValueError(f"{key}: {asked} has no split {split or 'train'!r} but {known}: write NAME:CONFIG:SPLIT")
    shards = files[split or "train"]
    for shard in shards:
        if kind_of(shard) not in READERS:
            kinds = ", ".join(READERS)
            raise ValueError(
                one_line(f"{key}: {shard} of {asked} is of unknown kind {kind_of(shard)!r}, none of {kinds}")
            )
    return shards


def _find_files(name: str, config: str, what: str) -> Mapping[str, list[str]]:
    """A data set's files by split."""
    import datasets  # here: it takes seconds, and few runs need it before their tokens are there

    try:
        found = datasets.load_dataset_builder(name, config or None).config.data_files
    except Exception as error:  # datasets, its drivers and the network have exceptions of their own
        raise ValueError(
            one_line(f"{what} cannot be had ({error or type(error).__name__}): check name, config and network")
        ) from error
    return {split: [str(file) for file in files] for split, files in (found or {}).items()}


def read_shard(shard: Path | str, key: str, column: str, number: int = 0, of: int = 1) -> Iterator[str]:
    """The documents of a shard, or of one of `of` pieces of it; where reading breaks off, it goes on behind them.

    Raises:
        ValueError: in one line, with the key and the shard: it holds what is no text, or could not be read in
            `len(WAITS) + 1` tries without getting further.
    """
    piece = Piece(number, of, PurePosixPath(shard).suffix in PACKED)
    given, tries = 0, 0
    while True:
        before = given
        try:
            with shard.open("rb") if isinstance(shard, Path) else fsspec.open(shard, "rb", compression="infer") as file:
                for text in islice(READERS[kind_of(shard)](file, column, piece), given, None):
                    given += 1
                    yield text
            return
        except ValueError as error:  # what stands there is wrong, and will be the next time
            raise ValueError(one_line(f"{key}: shard {shard} cannot be read: {error}")) from error
        except Exception as error:  # fsspec's drivers have exceptions of their own
            tries = 1 if given > before else tries + 1
            reason = one_line(f"{error}" or type(error).__name__)
            if tries > len(WAITS):
                raise ValueError(
                    f"{key}: shard {shard} cannot be read in {tries} tries ({reason}): check the network, start again"
                ) from error
            log.warning("data  shard %s: %s; trying again in %s s", shard, reason, WAITS[tries - 1])
            time.sleep(WAITS[tries - 1])


def kind_of(shard: Path | str) -> str:
    """How a shard is read: by its ending, that of packing left out."""
    path = PurePosixPath(os.path.basename(shard))
    ending = (path.with_suffix("") if path.suffix in PACKED else path).suffix
    return ".jsonl" if ending == ".json" else ending  # so the hub calls objects a line
