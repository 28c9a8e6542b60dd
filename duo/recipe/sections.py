"""Sections of a recipe that no other part of duo owns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from duo.backbone import BackboneConfig
from duo.routing.registry import unknown
from duo.storage.shared import LEAST
from duo.storage.store import DIGEST

MOST_ROWS = 10_000  # of a comparison: combinations of values are soon more than anyone can train


@dataclass(frozen=True)
class SeededBackboneConfig(BackboneConfig):
    """A backbone, and what its training begins from."""

    small: int | None = BackboneConfig.small  # type: ignore[assignment]  # a number from __post_init__ on
    """Inner width of the small FFN (null: a sixteenth of the big one's, as in the paper)."""
    seed: int = 0
    """Seed of the initial weights and of stage 1's random routes."""
    pretrained: str | None = None
    """Model that it begins as: a folder of save_pretrained, or a hub's name; its FFNs are big, its config the shape."""
    small_from: str | None = None
    """What small FFNs begin as: `big` (the big ones' most active neurons, refitted layer by layer), null (random)."""
    small_steps: int = 100
    """Steps of Adam by which `small_from` fits each layer, after regression."""

    def __post_init__(self) -> None:
        small = max(self.big // 16, 1) if self.small is None else self.small
        object.__setattr__(self, "small", small)
        super().__post_init__()
        if self.small_from not in (None, "big"):
            raise ValueError(f"backbone.small_from={self.small_from!r} must be big, or null")
        if self.small_steps < 0:
            raise ValueError(f"backbone.small_steps={self.small_steps} must be 0 or more")
        if self.small_from and small > self.big:
            raise ValueError(
                f"backbone.small={small} is more than backbone.big={self.big}, where backbone.small_from takes "
                "its neurons: lower it"
            )


@dataclass(frozen=True)
class TasksConfig:
    """Downstream tasks of lm-eval, answered by all big, fixed, random and the router; none: losses are measured.

    Raises:
        ValueError: a number is impossible.
    """

    tasks: list[str] = field(default_factory=list)
    """Tasks of lm-eval (arc_easy, hellaswag, ...), or of `task_path`; their questions come from the hub."""
    task_path: str | None = None
    """Folder of tasks of your own, one YAML each, as lm-eval reads them; those need no network."""
    limit: int | None = None
    """Questions of each task (null: all)."""
    shots: int | None = None
    """Examples in front of each question (null: as the task says)."""

    def __post_init__(self) -> None:
        for name, least in (("limit", 1), ("shots", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value} must be at least {least}, or null")


@dataclass(frozen=True)
class CompareConfig:
    """Rows beside one another, each a recipe of its own: what it changes in this one.

    Raises:
        ValueError: rows that are compared with are not there, or a number is impossible.
    """

    rows: dict[str, Any] = field(default_factory=dict)
    """Changes of the recipe by row name (null leaves a row out); none: an ordinary run."""
    over: dict[str, Any] = field(default_factory=dict)
    """Keys and the values they go through, as in {budget.big: [4, 6]}: a group of rows for each combination."""
    minus: list[str] = field(default_factory=list)
    """Rows from which the others of their group are subtracted, on the same tokens."""
    gap: list[str] = field(default_factory=list)
    """The two rows, of the best fixed pattern and of the oracle, between which gap closed is measured."""
    knowledge: dict[str, str] = field(default_factory=dict)
    """By row, the row whose router's prediction is what it knows: its routes are shown beside what that is worth."""
    seeds: int = 1
    """Seeds from which each router that learns is trained; its losses are averaged."""

    def __post_init__(self) -> None:
        for name in (*self.minus, *self.gap):
            if self.rows.get(name) is None:
                raise ValueError(unknown("row in compare.minus or compare.gap:", name, self.names))
        for name in {*self.knowledge} - {*self.rows}:
            raise ValueError(unknown("row in compare.knowledge:", name, self.names))
        for rung, by in self.known_by.items():
            if by not in self.names or not self.gap:
                raise ValueError(f"compare.knowledge.{rung}={by} needs a row of that name, and compare.gap")
        if len(self.gap) not in (0, 2) or self.seeds < 1:
            raise ValueError(
                f"compare.gap={self.gap} must name two rows (or none), compare.seeds={self.seeds} be 1 or more"
            )
        for name, change in self.rows.items():
            if change is not None and not isinstance(change, dict):
                raise ValueError(f"compare.rows.{name}={change!r} must hold keys of the recipe, or be null")
        for key, values in self.over.items():
            if not isinstance(values, list) or not values:
                raise ValueError(f"compare.over: {key}={values!r} must be a list of values")
        if (rows := math.prod(map(len, self.over.values())) * len(self.names)) > MOST_ROWS:
            raise ValueError(f"compare.rows and compare.over make {rows:,} rows: there may be {MOST_ROWS:,}")

    @property
    def known_by(self) -> dict[str, str]:
        """The row whose prediction is what a row knows, of the rows that are there."""
        return {row: by for row, by in self.knowledge.items() if row in self.names}

    @property
    def names(self) -> list[str]:
        """The rows that are there."""
        return [name for name, change in self.rows.items() if change is not None]


TRACED = ("subset", "sequences", "holdout")
"""What routes may be kept of."""


@dataclass(frozen=True)
class ReportConfig:
    """A report of several comparisons: what figures and claims of the paper are made of.

    Raises:
        ValueError: a part or a trace lacks what it needs.
    """

    parts: dict[str, Any] = field(default_factory=dict)
    """Comparisons by name (null leaves one out): the recipe that each begins with (`base`), and what it changes."""
    traces: dict[str, Any] = field(default_factory=dict)
    """Rows whose routes are kept token by token, by name: `part`, `row`, `at` (keys of its group), `on` (subset: the
    tokens that searches are scored on; sequences: the same sequences whole; holdout: the first ones of the full
    hold-out)."""
    seeds: int | None = None
    """Seeds of every learned router of parts that set no `compare.seeds` of their own (null: as the recipes say that
    they begin with); claims about routers need five."""

    def __post_init__(self) -> None:
        if self.seeds is not None and self.seeds < 1:
            raise ValueError(f"report.seeds={self.seeds} must be 1 or more")
        for name, values in self.parts.items():
            if values is not None and not (isinstance(values, dict) and isinstance(values.get("base"), str)):
                raise ValueError(f"report.parts.{name}={values!r} must hold `base`, a recipe's name, or be null")
        for name, values in self.traces.items():
            if values is None:
                continue
            if not isinstance(values, dict) or not {"part", "row"} <= {*values} <= {"part", "row", "at", "on"}:
                raise ValueError(f"report.traces.{name}={values!r} must hold part and row, and may hold at and on")
            if values.get("on", "subset") not in TRACED:
                raise ValueError(f"report.traces.{name}.on={values['on']!r} must be one of {', '.join(TRACED)}")
            if values["part"] not in self.parts:
                raise ValueError(unknown(f"report.traces.{name}.part:", values["part"], self.parts))

    @property
    def names(self) -> list[str]:
        """The parts that are there."""
        return [name for name, values in self.parts.items() if values is not None]


@dataclass(frozen=True)
class LeaderboardConfig:
    """Where shared results are, and a shared backbone to use.

    Raises:
        ValueError: `backbone` is no digest.
    """

    store: str | None = None
    """Folder or fsspec location of the leaderboard (null: the repository's own)."""
    backbone: str | None = None
    """Digest of a published backbone, or its beginning: its weights and tokens are used, none are made."""

    def __post_init__(self) -> None:
        if self.backbone and not DIGEST.fullmatch(self.backbone):
            raise ValueError(
                f"leaderboard.backbone={self.backbone!r} must be a digest: 64 digits from 0 to f, or its first "
                f"{LEAST} or more"
            )
