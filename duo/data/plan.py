"""From settings to a stream: its plan, its digest, and its tokens, where they are made once beforehand."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from tokenizers import Tokenizer
from torch.utils.data import Dataset

from duo.data.config import DataConfig
from duo.data.lanes import Plan, Reader, Source
from duo.data.prepare import HELD
from duo.data.shards import shard_file, write_shard
from duo.data.sources import find_training
from duo.data.tokenizer import tokenizer_digest
from duo.data.tokens import Digests
from duo.data.units import cut, identify
from duo.data.workers import in_workers

FORMAT = 1  # raised by every change that alters a stream

log = logging.getLogger(__name__)


def plan_stream(config: DataConfig, tokenizer: Tokenizer, folder: Path) -> Plan:
    """The stream of the training documents, without those of hold-outs and calibration sets.

    Args:
        folder: what `prepare` gave.

    Raises:
        ValueError: see `find_training`; or there are too few documents.
    """
    shards, parts = find_training(config), config.parts
    sources = [
        Source(part.key, part.column, part.weight, cut(shards[part.key], config.lanes, part.key)) for part in parts
    ]
    held = json.loads((folder / HELD).read_text())
    known: list[Any] = [FORMAT, tokenizer_digest(tokenizer), sorted(held), config.seed]
    for source in sources:
        files = [identify(shard) for shard in dict.fromkeys(unit.shard for unit in source.units)]
        known.append([source.column, files, [unit[1:] for unit in source.units]])
    return Plan(
        tuple(sources), tokenizer.to_str(), config.tokens + 1, config.lanes, config.shuffle, (config.seed,),
        frozenset(map(bytes.fromhex, held)), config.seed, hashlib.sha256(json.dumps(known).encode()).hexdigest(),
    )  # fmt: skip


def known_by(plan: Plan, digests: Digests) -> Digests:
    """The digests of tokens of which those that train are a stream: of the stream and of what is prepared."""
    return Digests(*(hashlib.sha256(f"{plan.digest}:{digest}".encode()).hexdigest() for digest in digests))


def prepare_shards(plan: Plan, vocabulary: int, cache: Path, workers: int) -> Plan:
    """The same stream, its tokens in the cache, one file a unit; those that are there already stay.

    Raises:
        ValueError: see `read_shard`.
        OSError: the cache cannot be written.
    """
    folder = cache / "data" / "shards" / plan.tokens[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # another process waits, and finds them
        units = [(number, unit) for number, source in enumerate(plan.sources) for unit in range(len(source.units))]
        missing = [where for where in units if not shard_file(folder, *where).exists()]
        if missing:
            log.info("data  preparing %s of %s shards in %s", len(missing), len(units), folder)
        making = _Making(plan, folder, vocabulary, missing)
        for said in in_workers(making, workers) if workers else map(making.__getitem__, range(len(missing))):
            if said:
                raise ValueError(said)
    return replace(plan, prepared=folder)


class _Making(Dataset[str]):
    """Units that are tokenized when they are asked for; each is what went wrong, or empty."""

    def __init__(self, plan: Plan, folder: Path, vocabulary: int, units: list[tuple[int, int]]) -> None:
        self._plan, self._folder, self._vocabulary, self._units = plan, folder, vocabulary, units
        self._reader: Reader | None = None

    def __len__(self) -> int:
        return len(self._units)

    def __getitem__(self, index: int) -> str:
        self._reader = self._reader or Reader(self._plan)
        where = self._units[index]
        try:
            write_shard(shard_file(self._folder, *where), self._reader.encode(*where), self._vocabulary)
        except (ValueError, OSError) as error:  # from another process it would come with all its traces
            return str(error)
        return ""
