"""A router's row, of routes that a child decided: the parent, which alone has the labels, replays and scores them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from duo.backbone import Backbone
from duo.data.batch import Batch
from duo.data.datamodule import TextData
from duo.evaluation.evaluate import score_routes
from duo.evaluation.row import Row
from duo.leaderboard.sealed.process import PATIENCE, run_child
from duo.leaderboard.sealed.protocol import BACKBONE, ROUTER, Decided, Job, read_routes, write_job
from duo.recipe import Recipe
from duo.routing.registry import describe
from duo.routing.router import Router
from duo.stages.cache import Made
from duo.stages.publish import backbone_head, shape_of
from duo.stages.score import complete_row, score_row
from duo.storage.shared import open_store
from duo.storage.store import DIGEST, HEADS, Store
from duo.storage.weights import save_weights

log = logging.getLogger(__name__)


class Sealed(NamedTuple):
    """A router's row without labels in its reach."""

    row: Row
    parts: dict[str, Sequence[Batch]]
    """What was routed: `scores` or `subset`, a slash, and the hold-out; empty for a bound, which had labels."""
    routes: dict[str, Tensor]
    """route_NTL of each."""


@dataclass(frozen=True)
class Subject:
    """A router on its backbone, as children get them: by its name, options and weights, and nothing else."""

    recipe: Recipe
    backbone: Made[Backbone]
    router: Made[Router]
    """Its folder holds its weights."""
    patience: float = PATIENCE
    """Seconds that a child may take."""
    row: str = ""
    """What messages call it; by default by its router."""

    @property
    def who(self) -> str:
        """The router, as errors name it."""
        return describe(type(self.router.module))

    def score(self, data: TextData) -> Sealed:
        """The row of what a child routes; of a router that needs labels, the row of an evaluation with them, a bound.

        Raises:
            ValueError: what the router raises; it asks for labels here alone; or the child died or gave no answer.
        """
        parts: dict[str, Sequence[Batch]] = {}
        for name, batches in {"scores": data.holdout, "subset": data.subset}.items():
            if name == "subset" or self.recipe.full_holdout:
                parts |= {f"{name}/{holdout}": batches(holdout) for holdout in data.holdouts}
        log.info("sealed  %s routes in a process without labels", self.row or self.recipe.router["name"])
        decided = self.route([*parts.values()])
        if decided is None:
            return Sealed(self._score_bound(data), {}, {})
        scores = {
            name: score_routes(self.backbone.module, self.router.module, batches, found)
            for (name, batches), found in zip(parts.items(), decided, strict=True)
        }
        by_kind = {
            kind: {name.partition("/")[2]: score for name, score in scores.items() if name.startswith(f"{kind}/")}
            for kind in ("scores", "subset")
        }
        row = complete_row(self.recipe, self.backbone, self.router, data, by_kind["scores"], by_kind["subset"])
        routes = [torch.cat([route_BTL for route_BTL, _ in found]) for found in decided]
        return Sealed(row, parts, dict(zip(parts, routes, strict=True)))

    def _score_bound(self, data: TextData) -> Row:
        log.info(
            "sealed  %s asks for labels: it is evaluated with them, as a bound", self.row or self.recipe.router["name"]
        )
        row = score_row(self.recipe, self.backbone, self.router, data, self.row)
        if not row.bound:
            raise ValueError(f"{self.who} asks for labels where there are none, and not in an ordinary evaluation")
        return row

    def route(self, parts: Sequence[Sequence[Batch]], backbone: Backbone | None = None) -> Decided | None:
        """What a child of its own decides on the inputs of these batches, in this order; None: it asks for labels.

        Args:
            parts: batches that are decided, and whose time is taken, together.
            backbone: the one that it routes; default: its own.

        Raises:
            ValueError: as `score`.
        """
        backbone = backbone or self.backbone.module
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            self._pack(folder, backbone)
            write_job(folder, self._job(backbone), parts)
            answer = run_child("route", folder, self.who, self.patience)
            if answer.failed is not None:
                raise ValueError(answer.failed)
            if answer.asked_for_labels:
                return None
            try:
                return read_routes(folder, answer, parts, backbone.config.layers)
            except ValueError as error:
                raise ValueError(f"{self.who}, in a process without labels, gave no routes: {error}") from error

    def _pack(self, folder: Path, backbone: Backbone) -> None:
        save_weights(backbone, folder / BACKBONE)
        (folder / ROUTER).write_bytes((self.router.folder / ROUTER).read_bytes())
        lend_published(self.recipe, folder / "store")

    def _job(self, backbone: Backbone) -> Job:
        return Job(
            router=self.recipe.router["name"],
            options=self.recipe.router_options,
            budget=self.recipe.spec.budget._asdict(),
            backbone=shape_of(backbone),
            seed=self.recipe.seed,
            device=str(next(backbone.parameters()).device),
            threads=torch.get_num_threads(),
        )


def lend_published(recipe: Recipe, folder: Path) -> None:
    """Copies the published backbones that a router's options name into a store of the child's, without their tokens."""
    for value in recipe.router_options.values():
        if isinstance(value, str) and DIGEST.fullmatch(value):
            source, store = open_store(), Store(str(folder))  # where routers look for them
            if source.holds("backbones", value, HEADS["backbones"]):
                tokens = backbone_head(source, value).tokens
                store.copy("tokens", tokens, source, leave_out="tokens.safetensors")  # they hold every hold-out
                store.copy("backbones", value, source)
