"""All that a recipe trains and evaluates, each once, as tokens and FLOPs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

import torch
from msgspec import Struct

from duo.backbone.flops import token_flops
from duo.data.config import DataConfig
from duo.plan.deciding import Decided, Used, count_calibrating, count_deciding, count_learning
from duo.plan.training import stage1_flops
from duo.recipe import BACKBONE, Recipe, digest
from duo.routing.router import learns
from duo.training.config import Stage1Config


class Work(Struct, frozen=True):
    """One thing that is done."""

    kind: str
    """`stage 1`, `stage 3`, `calibration`, `search` or `evaluation`."""
    what: str
    tokens: float
    flops: float


@dataclass
class Works:
    """What a recipe does.

    Args:
        recipe: of one router, a comparison, or a report.
        devices: that share it.
    """

    recipe: Recipe
    devices: int = 1
    done: list[Work] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is not counted, and why."""
    _seen: set[str] = field(default_factory=set)
    _decided: dict[str, Decided] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row, seeds in rows_of(self.recipe):
            self._backbone(row)
            name = row.router["name"]
            try:
                self._router(row, seeds)
                self._scores(row, seeds)
            except ValueError as error:  # a router that needs more than a toy
                self._note(f"what {name} takes beside a pass is not counted: {error}")
        if self.recipe.tasks:
            self._note("the questions of tasks are not counted: only the tasks know them")

    def flops(self, kind: str) -> float:
        """FLOPs of one kind of work."""
        return sum(work.flops for work in self.done if work.kind == kind)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _once(self, *about: object) -> bool:
        """Whether this was not asked before."""
        key = digest([str(part) for part in about])
        new = key not in self._seen
        self._seen.add(key)
        return new

    def _backbone(self, row: Recipe) -> None:
        """Training of the backbone, its first part before it."""
        for part, work in train_works(row, self.devices):
            if self._once("stage 1", part.identity(*BACKBONE, "data")):
                self.done.append(work)

    def _router(self, row: Recipe, seeds: int) -> None:
        """Training and calibration of the router."""
        trained = row if row.trained_here else replace(row, budget=row.stage3.budget or row.budget)
        about = trained.identity("budget", "router", "stage3", "seed", "data", *BACKBONE)
        if not self._once("stage 3", about):
            return
        config, data, name = row.backbone, row.data, row.router["name"]
        router = row.new_router()
        times = seeds if learns(router) else 1
        if learns(router) or not row.stage3.freeze_backbone:
            size = row.stage3.batch_size or data.batch_size
            tokens = float(times * row.stage3.steps * size * data.tokens)
            # of a frozen layer's products the backward pass needs one, of one that learns both
            passes = 2 if row.stage3.freeze_backbone else 3
            flops = passes * count_learning(trained).flops(config, data.tokens)
            self.done.append(Work("stage 3", name, tokens, tokens * flops))
        used, tokens = count_calibrating(row), float(times * _calibration_tokens(data))
        if used != Used():
            self.done.append(Work("calibration", name, tokens, tokens * used.flops(config, data.tokens)))

    def _scores(self, row: Recipe, seeds: int) -> None:
        """The passes that are scored, and what deciding takes beside them."""
        if not self._once("scores", row.identity(), seeds):
            return
        key = digest(row.identity("router", "budget", "backbone.layers", "backbone.skip_scope", "seed"))
        if key not in self._decided:
            self._decided[key] = count_deciding(row)
        decided, data, config = self._decided[key], row.data, row.backbone
        times = seeds if learns(row.new_router()) else 1
        holdouts = 2 if data.source == "builtin" else len(data.holdouts)
        on_subset = min(data.subset_tokens, data.tokens)
        parts = [(on_subset, data.subset_sequences * on_subset)]
        if row.full_holdout:
            parts.append((data.tokens, data.holdout_tokens))
            if not data.holdout_tokens:
                self._note("data.holdout_tokens=0 takes whole hold-outs: how long they are is not known")
        for length, each in parts:
            tokens = float(times * holdouts * each)
            routed = _routed(row, decided, length)
            self.done.append(Work("evaluation", row.router["name"], tokens, tokens * routed))
            if decided.deciding != Used():
                flops = decided.deciding.flops(config, length)
                self.done.append(Work("search", row.router["name"], tokens, tokens * flops))


def train_works(row: Recipe, devices: int = 1) -> Iterator[tuple[Recipe, Work]]:
    """What training a row's backbone takes, its first part before it, and the recipe of each; nothing if published."""
    if row.leaderboard.backbone:
        return
    if before := row.stage1.before:
        yield from train_works(replace(row, stage1=Stage1Config(**asdict(before))), devices)
    stage, data = row.stage1, row.data
    tokens = float(stage.steps * data.batch_size * data.tokens)
    accumulate = row.trainer.get("accumulate_grad_batches", 1)
    batch = data.batch_size * data.tokens // (devices * accumulate)
    twice = row.trainer.get("activation_checkpointing", False)
    flops = stage1_flops(row.backbone, stage, data.tokens, batch, twice)
    yield row, Work("stage 1", _describe(row), tokens, tokens * flops)


def rows_of(recipe: Recipe) -> Iterator[tuple[Recipe, int]]:
    """Every row that is trained and scored, and from how many seeds where it learns."""
    from duo.stages.score import baseline_recipes  # Lightning takes seconds: mistakes show before

    if recipe.parts:
        for part in recipe.parts.values():
            yield from rows_of(part)
    elif recipe.compare.names:
        for rows in recipe.groups.values():
            yield from ((row, recipe.compare.seeds) for row in rows.values())
    else:
        yield recipe, 1
        yield from ((row, 1) for row in baseline_recipes(recipe).values())


def _routed(row: Recipe, decided: Decided, tokens: int) -> float:
    """Mean FLOPs of a token of the pass that a route is."""
    config, (skip, small, big) = row.backbone, decided.routed
    attending = config.layers - (skip if config.skip_scope == "block" else 0)
    return float(token_flops(config, small, big, attending, torch.arange(tokens)).mean())


def _calibration_tokens(data: DataConfig) -> int:
    sets = 2 if data.source == "builtin" else max(len(data.calibration), 1)
    return sets * data.calibration_tokens


def _describe(row: Recipe) -> str:
    """What tells backbones apart."""
    stage, config = row.stage1, row.backbone
    learnt = "" if stage.learn == "all" else f", learn={stage.learn}"
    return f"p_big={stage.p_big:g}, p_skip={stage.p_skip:g}, big={config.big}, seed={config.seed}{learnt}"
