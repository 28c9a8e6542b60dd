"""From a finished run to entries: what its recipe gives is taken from the cache or made again, checked, and added."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from duo.backbone import Backbone
from duo.data.datamodule import TextData
from duo.evaluation.comparison import Comparison
from duo.evaluation.downstream import Downstream
from duo.evaluation.result import Result
from duo.evaluation.row import Row
from duo.leaderboard.entry import entry
from duo.leaderboard.entry.recipe import entry_values, strip_command, to_yaml
from duo.leaderboard.entry.rules import check_budget, check_conformance
from duo.leaderboard.entry.schema import read_head
from duo.leaderboard.sealed.prefixes import check_looking_ahead
from duo.leaderboard.sealed.process import PATIENCE
from duo.leaderboard.sealed.scoring import Subject
from duo.leaderboard.verify import ELSEWHERE, differences
from duo.progress import at
from duo.recipe import Recipe, digest, load
from duo.recipe.first import identity_of
from duo.routing import registry
from duo.routing.source import source_digest
from duo.stages.cache import Made
from duo.stages.compare import seeded_recipes
from duo.stages.output import load_finished
from duo.stages.publish import About, check_about, check_kept, copy_published, find_published, publish
from duo.stages.score import baseline_recipes, score_row, with_subset_for_searches
from duo.stages.source import BackboneSource, backbone_source
from duo.stages.stage3 import train_or_load
from duo.storage.scales import Scales
from duo.storage.shared import open_store
from duo.storage.store import HEADS, Store
from duo.training.trainer import join_world

TOLERANCE = 1e-6  # nats between the loss that a run claims and the one its recipe gives

log = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """One row of a run, from one seed."""

    name: str
    recipe: Recipe
    claimed: dict[str, float]
    """The run's loss on each hold-out."""

    @property
    def title(self) -> str:
        """As messages name it."""
        return f"{self.name}, seed {self.recipe.seed}"


@dataclass(frozen=True)
class Submission:
    """Adds rows of a run, as many as may be added; each seed is an entry of its own."""

    store: Store
    cache: Path
    note: str = ""
    """The submitter's words."""
    called: str = "default"
    """What the run's backbone is called, should it be new."""
    patience: float = PATIENCE
    """Seconds that a process without labels may take."""
    conform: set[str] = field(default_factory=set)
    """Routers that have passed the checks."""
    published: dict[str, str] = field(default_factory=dict)
    """Digests of the backbones that it has published, by that of their weights."""

    def run(self, folder: Path, rows: Sequence[str] = ()) -> tuple[list[str], list[str]]:
        """Digests of the new entries of a finished run, and what was refused; a row that is there is not added again.

        Args:
            folder: the run's.
            rows: names of those to add; none: all.

        Raises:
            ValueError: there is no finished run, or no such row, or no row may be added.
        """
        recipe, result = _load_run(folder)
        if recipe.leaderboard.store == self.store.shown:  # a run's folder keeps no password
            recipe = replace(recipe, leaderboard=replace(recipe.leaderboard, store=self.store.location))
        recipe = with_subset_for_searches(recipe)
        chosen = _choose(_candidates(recipe, result), rows)
        source = backbone_source(recipe)
        check_kept(recipe.data)
        check_about(self._about(recipe, source))  # before the checks, which take minutes
        data, device = source.open_data(self.cache), join_world(recipe.trainer)
        added: list[str | None] = []
        refused = []
        for number, candidate in enumerate(chosen, 1):
            try:
                log.info("row  %s of %s, %s", number, len(chosen), candidate.title)
                with at(candidate.title):
                    ours = data.batched(candidate.recipe.data.batch_size)
                    added.append(self._add(candidate, result.provenance, ours, device))
            except (ValueError, FloatingPointError) as error:
                refused.append(f"{candidate.name}: {error}")
                log.warning("refused  %s", refused[-1])
        if not added:
            raise ValueError(f"no row was added; the first one, {refused[0]}")
        return [digest for digest in added if digest], refused

    def _add(
        self, candidate: Candidate, provenance: dict[str, Any], data: TextData, device: torch.device
    ) -> str | None:
        name, recipe = candidate.name, candidate.recipe
        source = backbone_source(recipe)
        backbone, router = train_or_load(recipe, source, data, device, name)
        row = score_row(recipe, backbone, router, data, name)
        known = self._find_backbone(source, backbone, data)
        values = entry_values(recipe, known or "", row.learned)
        router_source = source_digest(type(router.module))
        if known and self._is_there(row, values, router_source):  # before the checks, which take minutes
            log.info("known  %s", candidate.title)
            return None
        self._check_router(recipe, row)
        subject = Subject(recipe, backbone, router, self.patience, name)
        sealed = subject.score(data)
        row = sealed.row  # from here on: nothing that the run itself says of its routes counts
        check_claim(candidate, row)
        check_budget(row)
        check_looking_ahead(subject, sealed)
        # after the checks: for a row that is refused nothing is published
        values["leaderboard.backbone"] = self.published[backbone.digest] = known or self._publish(
            recipe, source, backbone, data
        )
        package, version = registry.package_of(row.router)
        head = {
            "name": name,
            "note": self.note,
            "package": {"name": package, "version": version, "source": router_source},
            "provenance": {key: provenance[key] for key in ("commit", "versions", "device", "seconds")}
            | {"command": strip_command(provenance["command"])},
        }
        weights = (router.folder / "router.safetensors").read_bytes()
        files = {"recipe.yaml": to_yaml(values).encode(), "router.safetensors": weights}
        digest = entry.add(self.store, head, row, files)
        done = "would add" if isinstance(self.store, Scales) else "added"
        log.info("%s  %s: %s", done, candidate.title, digest[:12])
        return digest

    def _find_backbone(self, source: BackboneSource, backbone: Made[Backbone], data: TextData) -> str | None:
        """What the store knows the backbone as: the one that the recipe names, or one of the same weights."""
        named = source.published
        if named and self.store.holds("backbones", named, HEADS["backbones"]):
            return named
        return self.published.get(backbone.digest) or find_published(self.store, backbone.module, data)

    def _is_there(self, row: Row, values: dict[str, Any], source: str) -> bool:
        """Whether an entry that can be read has the same recipe, source of the router, and numbers."""
        line = digest([identity_of(values | {"seed": 0}), source])

        def same(name: str) -> bool:
            if read_head(self.store.head("entries", name), name).package.source != source:
                return False  # before its other files are fetched
            found = entry.read(self.store, name)
            return (found.line, found.seed) == (line, values["seed"]) and not [*differences(found.row, row, ELSEWHERE)]

        return any(found for _, found in self.store.sound("entries", same))

    def _check_router(self, recipe: Recipe, row: Row) -> None:
        asked = json.dumps([recipe.router, asdict(recipe.budget)])
        if asked not in self.conform:
            check_conformance(recipe, row)
            self.conform.add(asked)

    def _publish(self, recipe: Recipe, source: BackboneSource, backbone: Made[Backbone], data: TextData) -> str:
        log.warning(
            "%s  the backbone, its tokenizer and all of its tokens, from which the documents can be read",
            "would publish" if isinstance(self.store, Scales) else "publishing",
        )
        if source.published:  # elsewhere: an entry needs both beside it
            return copy_published(self.store, source.published, open_store(recipe.leaderboard.store))
        weights = backbone.folder / "backbone.safetensors"
        return publish(self.store, backbone.module, weights, data, self._about(recipe, source))

    def _about(self, recipe: Recipe, source: BackboneSource) -> About:
        return About(self.called, source.train_tokens, recipe.backbone.seed, asdict(recipe.stage1))


def check_claim(candidate: Candidate, row: Row) -> None:
    """Raises ValueError where the run's loss is not the one that its recipe gives where no label is in reach."""
    for holdout, loss in candidate.claimed.items():
        # a run of one router claims its subset's loss, a comparison that of the most tokens
        found = {score.loss for score in (row.shown[holdout], row.subset[holdout])}
        if min(abs(loss - other) for other in found) > TOLERANCE:
            raise ValueError(
                f"the run says that its loss on {holdout} is {loss}, its recipe gives {found}, and no label in reach"
            )


def _load_run(folder: Path) -> tuple[Recipe, Result | Comparison]:
    try:
        recipe = load(str(folder / "recipe.yaml"))
        result = load_finished(recipe, folder)
    except ValueError as error:
        raise ValueError(
            f"{folder} holds no run to submit, give a folder that python -m duo.run leaves: {error}"
        ) from error
    if result is None:
        raise ValueError(f"{folder} holds no finished run: let python -m duo.run finish it")
    if isinstance(result, Downstream):
        raise ValueError(f"{folder} holds accuracies, and the board shows losses: submit a run without tasks")
    return recipe, result


def _choose(candidates: Iterable[Candidate], rows: Sequence[str]) -> list[Candidate]:
    """Those of these names, or all; raises ValueError where there is no such row."""
    found = [*candidates]
    names = dict.fromkeys(candidate.name for candidate in found)
    if unknown := [row for row in rows if row not in names]:
        raise ValueError(f"the run has no row {', '.join(unknown)}; its rows are {', '.join(names)}")
    return [candidate for candidate in found if not rows or candidate.name in rows]


def _candidates(recipe: Recipe, result: Result | Comparison) -> Iterator[Candidate]:
    """The rows of a run: of a single one, its baselines and bounds among them."""
    if isinstance(result, Result):
        for name, row in ({"router": recipe} | baseline_recipes(recipe)).items():
            losses = {holdout: score.loss for holdout, score in result.subset[name].items()}
            yield Candidate(result.router if name == "router" else name, row, losses)
        return
    for group, rows in recipe.groups.items():
        for name, row in rows.items():
            found = result.groups[group][name]
            for number, each in enumerate(seeded_recipes(row, found.seeds)):
                yield Candidate(name, each, {key: losses[number] for key, losses in found.seed_losses.items()})
