"""From a finished run to entries: what its recipe gives is taken from the cache or made again, checked, and added."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from duo import stages
from duo.backbone import Backbone
from duo.data.datamodule import TextData
from duo.evaluation.comparison import Comparison
from duo.evaluation.result import Result
from duo.evaluation.row import Row
from duo.leaderboard.entry import entry
from duo.leaderboard.entry.recipe import canonical, public_command, to_yaml
from duo.leaderboard.entry.rules import check_budget, check_conformance, check_looking_ahead
from duo.leaderboard.entry.schema import head_of
from duo.leaderboard.verify import ELSEWHERE, differences
from duo.recipe.schema import Recipe, load
from duo.routing import registry
from duo.routing.source import source_digest
from duo.stages import single as jobs
from duo.stages.published import About, publish, published
from duo.storage.store import Store, sha256

TOLERANCE = 1e-6  # nats between the loss that a run claims and the one its recipe gives


class Candidate(NamedTuple):
    """One row of a run, from one seed."""

    name: str
    recipe: Recipe
    claimed: dict[str, float]
    """The run's loss on each hold-out."""


@dataclass(frozen=True)
class Submission:
    """Adds rows of a run, as many as may be added; each seed is an entry of its own."""

    store: Store
    cache: Path
    say: stages.Say
    note: str = ""
    """The submitter's words."""
    called: str = "default"
    """What the run's backbone is called, should it be new."""
    conform: set[str] = field(default_factory=set)
    """Routers that have passed the checks."""

    def run(self, folder: Path) -> tuple[list[str], list[str]]:
        """Digests of the new entries of a finished run, and what was refused; a row that is there is not added again.

        Raises:
            ValueError: there is no finished run, or no row may be added.
        """
        recipe, result = _finished(folder)
        added: list[str | None] = []
        refused = []
        for candidate in _candidates(recipe, result):
            try:
                added.append(self._add(candidate, result.provenance))
            except (ValueError, FloatingPointError) as error:
                refused.append(f"{candidate.name}: {error}")
                self.say("refused", refused[-1])
        if not added:
            raise ValueError(f"no row was added; the first one, {refused[0]}")
        return [digest for digest in added if digest], refused

    def _add(self, candidate: Candidate, provenance: dict[str, Any]) -> str | None:
        name, recipe, claimed = candidate
        data = stages.data_of(recipe, self.cache)
        backbone, router = stages.made(recipe, data, self.say)
        row = stages.scored(recipe, backbone, router, data, self.say)
        for holdout, loss in claimed.items():
            found = {score.loss for score in (row.shown[holdout], row.subset[holdout])}
            if min(abs(loss - other) for other in found) > TOLERANCE:
                raise ValueError(f"the run says that its loss on {holdout} is {loss}, its recipe gives {found}")
        source = source_digest(type(router.module))
        known = recipe.leaderboard.backbone or published(self.store, backbone.module, data)
        public = canonical(recipe, known or "")
        if known and self._is_there(row, to_yaml(public), source):
            self.say("known", f"{name}, seed {recipe.seed}")
            return None
        self._check(recipe, row)
        check_looking_ahead(row, backbone.module, router.module, data, recipe.seed)
        text = to_yaml(canonical(recipe, known or self._publish(recipe, backbone, data))).encode()
        package, version = registry.package_of(row.router)
        head = {
            "name": name,
            "note": self.note,
            "package": {"name": package, "version": version, "source": source},
            "provenance": {key: provenance[key] for key in ("commit", "versions", "device", "seconds")}
            | {"command": public_command(provenance["command"])},
        }
        weights = (router.folder / "router.safetensors").read_bytes()
        digest = entry.add(self.store, head, row, {"recipe.yaml": text, "router.safetensors": weights})
        self.say("added", f"{name}, seed {recipe.seed}: {digest[:12]}")
        return digest

    def _is_there(self, row: Row, recipe: str, source: str) -> bool:
        """Whether an entry that can be read has the same recipe, source of the router, and numbers."""

        def same(digest: str) -> bool:
            head = head_of(self.store.head("entries", digest), digest)
            if (head.files["recipe.yaml"], head.package.source) != (sha256(recipe.encode()), source):
                return False
            return not [*differences(entry.read(self.store, digest).row, row, ELSEWHERE)]

        return any(found for _, found in self.store.sound("entries", same))

    def _check(self, recipe: Recipe, row: Row) -> None:
        check_budget(row)
        asked = json.dumps([recipe.router, asdict(recipe.budget)])
        if asked not in self.conform:
            check_conformance(recipe, row)
            self.conform.add(asked)

    def _publish(self, recipe: Recipe, backbone: stages.Made[Backbone], data: TextData) -> str:
        tokens = recipe.stage1.steps * recipe.data.batch_size * recipe.data.tokens
        about = About(self.called, tokens, recipe.backbone.seed, asdict(recipe.stage1))
        self.say(
            "publishing", "the backbone, its tokenizer and all of its tokens, from which the documents can be read"
        )
        return publish(self.store, backbone.module, backbone.folder / "backbone.safetensors", data, about)


def _finished(folder: Path) -> tuple[Recipe, Result | Comparison]:
    try:
        recipe = load(str(folder / "recipe.yaml"))
        result = jobs.finished(recipe, folder)
    except ValueError as error:
        raise ValueError(f"{folder} holds no run to submit: {error}") from error
    if result is None:
        raise ValueError(f"{folder} holds no finished run: let python -m duo.run finish it")
    return recipe, result


def _candidates(recipe: Recipe, result: Result | Comparison) -> Iterator[Candidate]:
    """The rows of a run: of a single one, its baselines and bounds among them."""
    if isinstance(result, Result):
        for name, row in ({"router": recipe} | stages.beside(recipe)).items():
            losses = {holdout: score.loss for holdout, score in result.subset[name].items()}
            yield Candidate(result.router if name == "router" else name, row, losses)
        return
    for group, rows in recipe.groups().items():
        for name, row in rows.items():
            found = result.groups[group][name]
            for number, each in enumerate(stages.seeded(row, found.seeds)):
                yield Candidate(name, each, {key: losses[number] for key, losses in found.seed_losses.items()})
