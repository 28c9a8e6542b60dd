"""Where the tokens come from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

AT_LEAST_1 = (
    "tokens", "batch_size", "subset_sequences", "subset_tokens", "holdout_documents", "calibration_documents", "lanes",
    "shuffle",
)  # fmt: skip
FIRST_TOKENS = 1 << 20  # of a stream, unless `train_tokens` says


class Taken(NamedTuple):
    """What is taken of held-out documents."""

    sequences: int
    """In all; 0: all that there are."""
    each: int
    """Of one document, at most, where there are documents enough."""


class Part(NamedTuple):
    """One source of training documents."""

    key: str
    """The setting that names it."""
    source: str
    train: list[str]
    column: str
    weight: float
    """Its share of the tokens."""


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
    """The same of the calibration sets by name, that of a hold-out's own kind by the hold-out's; none: 2 % of the
    training documents, as one set `train`."""
    column: str = "text"
    """Field of a jsonl or parquet row that holds the text."""
    tokenizer: str | None = None
    """Folder, hub name or tokenizer.json of a fast tokenizer (null: a pretrained backbone's own, or a new one)."""
    tokens: int = 128
    """Tokens of a sequence (T); documents are packed into T+1, the last one only as a label."""
    batch_size: int = 16
    """Sequences per optimizer step, over all devices and accumulation."""
    eval_batch_size: int | None = None
    """Sequences of a batch in calibration and evaluation, on each device (null: batch_size)."""
    train_bytes: int = 0
    """Bytes of training text to use, whole documents (0: all)."""
    train_tokens: int = 0
    """Tokens of training text to use (0: all; `hub` needs a number, and reads little more; of a stream, whose steps say
    how much trains, the first ones, which a new tokenizer and a calibration set `train` are made of; 0: 1,048,576)."""
    stream: bool = False
    """Whether training reads its documents (of `files` or `hub`) as it goes, epoch after epoch, not all beforehand."""
    mix: dict[str, Any] = field(default_factory=dict)
    """Sources of a stream by name, in place of `train`: each `train` and `weight` (share of the tokens; they need not
    add up to 1), and where they differ `source` and `column`."""
    workers: int = 0
    """Processes beside each training process that read and tokenize a stream (0: none)."""
    prepare: bool = False
    """Whether a stream is tokenized once, into memory-mapped files of the cache (the same stream, read faster)."""
    lanes: int = 16
    """Parts that a stream's documents are dealt to, which fill its sequences in turn; the order depends on it, and on
    no number of processes; a multiple of processes times workers spares work."""
    shuffle: int = 4096
    """Sequences of a stream, over all lanes, that are shuffled at a time."""
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
        if self.eval_batch_size is not None and self.eval_batch_size < 1:
            raise ValueError(f"data.eval_batch_size={self.eval_batch_size} must be at least 1, or null")
        # builtin cuts its hold-outs out of what trains: all would leave nothing; a hub's documents may have no end
        least, least_train = int(self.source != "files"), int(self.source == "hub" and not self.stream)
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
        given = [name for name in ("train", "mix", "holdouts", "calibration") if getattr(self, name)]
        if self.source == "builtin" and given:
            raise ValueError(
                f"data.{given[0]} is given, but data.source=builtin has its own documents: set data.source=files or hub"
            )
        self._check_stream()
        if self.source != "builtin" and not ((self.train or self.mix) and self.holdouts):
            what = "globs" if self.source == "files" else "NAME:CONFIG:SPLIT"
            raise ValueError(f"data.source={self.source} needs data.train=[{what}] and data.holdouts.NAME=[{what}]")
        self._check_globs()
        if "train" in self.holdouts:  # as the calibration set by default is called, which is of no hold-out
            raise ValueError("data.holdouts.train has the name of the training documents: give it another")

    @property
    def parts(self) -> list[Part]:
        """The sources of training documents, those of weight 0 left out."""
        if not self.mix:
            return [Part("data.train", self.source, self.train, self.column, 1.0)]
        total = sum(float(values["weight"]) for values in self.mix.values())
        return [
            Part(
                f"data.mix.{name}.train",
                values.get("source", self.source),
                values["train"],
                values.get("column", self.column),
                round(float(values["weight"]) / total, 12),  # 3 to 1 is 0.6 to 0.2
            )
            for name, values in self.mix.items()
            if values["weight"]
        ]

    @property
    def first_tokens(self) -> int:
        """Training tokens that are prepared beforehand; 0: all."""
        return self.train_tokens or FIRST_TOKENS * self.stream

    @property
    def evaluated_at_once(self) -> int:
        """Sequences of a batch in calibration and evaluation."""
        return self.eval_batch_size or self.batch_size

    def taken(self, kind: str) -> Taken:
        """What a split of `holdouts` or of `calibration` takes."""
        key = kind.removesuffix("s")
        tokens, documents = (getattr(self, f"{key}_{unit}") for unit in ("tokens", "documents"))
        sequences = math.ceil(tokens / self.tokens)  # up, so that no fewer are scored than asked for
        return Taken(sequences, max(math.ceil(sequences / documents), 1))

    def _check_stream(self) -> None:
        """Raises ValueError for a stream, or sources of one, that cannot be."""
        if self.workers < 0:
            raise ValueError(f"data.workers={self.workers} must be 0 or more")
        if idle := [name for name in ("mix", "prepare", "workers") if getattr(self, name) and not self.stream]:
            raise ValueError(f"data.{idle[0]} is of a stream: set data.stream=true, or leave it out")
        if self.stream and self.source == "builtin":
            raise ValueError("data.stream=true reads documents of your own: set data.source=files or hub")
        if self.mix and self.train:
            raise ValueError("data.train and data.mix both name training documents: give one of them")
        for name, values in self.mix.items():
            check_mixed(f"data.mix.{name}", values)
        if self.mix and not any(values["weight"] for values in self.mix.values()):
            raise ValueError(f"data.mix: the weight of {', '.join(self.mix)} is 0: give one of them more")

    def _check_globs(self) -> None:
        """Raises ValueError for what is no list of globs, with its key."""
        named = {"train": self.train} if self.train else {}
        named |= {f"mix.{name}.train": values["train"] for name, values in self.mix.items()}
        for kind, sets in (("holdouts", self.holdouts), ("calibration", self.calibration)):
            named |= {f"{kind}.{name}": globs for name, globs in sets.items()}
        for key, globs in named.items():
            if isinstance(globs, str):  # else each of its characters would be a glob
                raise ValueError(f"data.{key}={globs} is no list of globs: write data.{key}=[{globs}]")
            if not globs:
                raise ValueError(f"data.{key}=[] names no file: give globs of its documents, or leave it out")


def check_mixed(key: str, values: Any) -> None:
    """Raises ValueError where one source of a mix is none, with its key."""
    known = ("train", "weight", "source", "column")
    if not isinstance(values, dict) or not {"train", "weight"} <= {*values} <= {*known}:
        raise ValueError(f"{key}={values!r} must hold train and weight, and may hold source and column")
    weight = values["weight"]
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
        raise ValueError(f"{key}.weight={weight!r} must be a number of 0 or more")
    if values.get("source", "files") not in ("files", "hub"):
        raise ValueError(f"{key}.source={values['source']!r} is unknown: choose files or hub")
    if not isinstance(values.get("column", ""), str):
        raise ValueError(f"{key}.column={values['column']!r} must be a column's name")
