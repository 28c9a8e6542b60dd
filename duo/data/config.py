"""Where the tokens come from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

AT_LEAST_1 = ("tokens", "batch_size", "subset_sequences", "subset_tokens", "holdout_documents", "calibration_documents")


class Taken(NamedTuple):
    """What is taken of held-out documents."""

    sequences: int
    """In all; 0: all that there are."""
    each: int
    """Of one document, at most, where there are documents enough."""


@dataclass(frozen=True)
class DataConfig:
    """Documents, and how they become sequences.

    Raises:
        ValueError: an unknown source, sizes below 1, files without `train` or `holdouts`, or builtin with either.
    """

    source: str = "builtin"
    """Documents: `builtin` (speeches, and Python's standard library), `files` (your own) or `hub` (of `datasets`)."""
    train: list[str] = field(default_factory=list)
    """Training documents: globs for `files` (txt: one a file; jsonl, parquet: a row), NAME:CONFIG:SPLIT for `hub`."""
    holdouts: dict[str, list[str]] = field(default_factory=dict)
    """The same of the hold-outs by name; each is reported on its own. Of `hub`, their first documents train nothing."""
    calibration: dict[str, list[str]] = field(default_factory=dict)
    """The same of the calibration sets by name; none: 2 % of the training documents, as one set `train`."""
    column: str = "text"
    """Field of a jsonl or parquet row that holds the text."""
    tokenizer: str | None = None
    """Folder, hub name or tokenizer.json of a fast tokenizer (null: a pretrained backbone's own, or a new one)."""
    tokens: int = 128
    """Tokens of a sequence (T); documents are packed into T+1, the last one only as a label."""
    batch_size: int = 16
    """Sequences per optimizer step, over all devices and accumulation."""
    train_bytes: int = 0
    """Bytes of training text to use, whole documents (0: all)."""
    train_tokens: int = 0
    """Tokens of training text to use (0: all; `hub` needs a number, and reads little more)."""
    holdout_tokens: int = 65536
    """Tokens to score in each hold-out (0: all; `builtin` needs a number, and holds at least so many)."""
    calibration_tokens: int = 32768
    """Tokens of each calibration set (0: all; `builtin` needs a number, and holds at least so many)."""
    holdout_documents: int = 48
    """Documents that a hold-out takes its tokens from, at least, where there are so many."""
    calibration_documents: int = 24
    """The same for each calibration set."""
    subset_sequences: int = 48
    """Sequences of each hold-out, spread over its documents, that searches are scored on (too expensive for all)."""
    subset_tokens: int = 48
    """First tokens of each of those sequences."""
    seed: int = 0
    """Seed of the split into documents and of the order of training."""
    trust: bool = True
    """Whether documents whose names, sizes and times are those of an earlier start are not read again."""

    def __post_init__(self) -> None:
        for name in AT_LEAST_1:
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name}={getattr(self, name)} must be at least 1")
        # builtin cuts its hold-outs out of what trains: all would leave nothing; a hub's documents may have no end
        least, least_train = int(self.source != "files"), int(self.source == "hub")
        for name, smallest in (
            ("train_bytes", 0), ("train_tokens", least_train), ("holdout_tokens", least), ("calibration_tokens", least)
        ):  # fmt: skip
            if getattr(self, name) < smallest:
                raise ValueError(
                    f"data.{name}={getattr(self, name)} must be at least {smallest} for source {self.source}"
                )
        if self.seed < 0:
            raise ValueError(f"data.seed={self.seed} must be 0 or more")
        if self.source not in ("builtin", "files", "hub"):
            raise ValueError(f"data.source={self.source!r} is unknown: choose builtin, files or hub")
        given = [name for name in ("train", "holdouts", "calibration") if getattr(self, name)]
        if self.source == "builtin" and given:
            raise ValueError(
                f"data.{given[0]} is given, but data.source=builtin has its own documents: set data.source=files or hub"
            )
        if self.source != "builtin" and not (self.train and self.holdouts):
            what = "globs" if self.source == "files" else "NAME:CONFIG:SPLIT"
            raise ValueError(f"data.source={self.source} needs data.train=[{what}] and data.holdouts.NAME=[{what}]")
        self._check_globs()
        # a batch's domain is the bare name; a calibration set may be `train`, as the one by default is
        if clash := {"train"} & {*self.holdouts} or {*self.holdouts} & {*self.calibration}:
            raise ValueError(f"data: the name {clash.pop()!r} is taken twice among train, holdouts and calibration")

    def taken(self, kind: str) -> Taken:
        """What a split of `holdouts` or of `calibration` takes."""
        key = kind.removesuffix("s")
        tokens, documents = (getattr(self, f"{key}_{unit}") for unit in ("tokens", "documents"))
        sequences = math.ceil(tokens / self.tokens)  # up, so that no fewer are scored than asked for
        return Taken(sequences, max(math.ceil(sequences / documents), 1))

    def _check_globs(self) -> None:
        """Raises ValueError for what is no list of globs, with its key."""
        named = {"train": self.train} if self.train else {}
        for kind, sets in (("holdouts", self.holdouts), ("calibration", self.calibration)):
            named |= {f"{kind}.{name}": globs for name, globs in sets.items()}
        for key, globs in named.items():
            if isinstance(globs, str):  # else each of its characters would be a glob
                raise ValueError(f"data.{key}={globs} is no list of globs: write data.{key}=[{globs}]")
            if not globs:
                raise ValueError(f"data.{key}=[] names no file: give globs of its documents, or leave it out")
