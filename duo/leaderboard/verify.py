"""An entry run again, from its own files alone: what was claimed is compared with what comes out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from duo import registry, stages
from duo.files import load_weights
from duo.leaderboard import entry
from duo.leaderboard.admission import check_budget, check_conformance, check_looking_ahead
from duo.leaderboard.canonical import from_yaml, line_of
from duo.leaderboard.entry import Entry
from duo.provenance import environment
from duo.recipe import Recipe
from duo.row import PARTS, Row
from duo.sources import source_digest
from duo.store import Store

ELSEWHERE = 1e-4  # relative difference that another platform's rounding may make
RETRAINED = 5e-3  # nats between an entry's loss and that of a router trained again from the same recipe


def verify(store: Store, digest: str, say: stages.Say, retrain: bool = False) -> list[str]:
    """What of an entry is not so, a sentence each; none: everything that can be run again gives what it says.

    Backbone and tokens are fetched by digest into an empty cache, the router gets the weights of the entry (or, to
    `retrain`, is trained by the entry's recipe), and every hold-out is routed, run and metered again. Where versions
    and device are those of the entry, all numbers must be equal; elsewhere within 1e-4.

    Raises:
        ValueError: the entry cannot be read, or cannot be run here: its router is not installed, or is another one.
    """
    claimed = entry.read(store, digest)
    try:
        recipe = from_yaml(claimed.recipe)
    except ValueError as error:
        return [f"recipe.yaml: {error}"]
    wrong = [*_inconsistent(claimed, recipe)]
    if wrong:
        return wrong
    _check_source(claimed)
    with tempfile.TemporaryDirectory() as folder:
        at_store = replace(recipe, leaderboard=replace(recipe.leaderboard, store=store.location))
        if retrain:
            return [*_retrained(claimed, at_store, Path(folder), say)]
        return _executed(store, claimed, at_store, Path(folder), say)


def _inconsistent(claimed: Entry, recipe: Recipe) -> Iterator[str]:
    """Fields that do not follow from the recipe."""
    head, row = claimed.head, claimed.row
    expected = {
        "recipe": (head.recipe, recipe.digest),
        "line": (head.line, line_of(recipe)),
        "seed": (head.seed, recipe.seed),
        "backbone": (head.backbone, recipe.leaderboard.backbone),
        "row.router": (row.router, recipe.router["name"]),
        "row.options": (row.options, recipe.router_options()),
        "row.budget": (row.budget, {"big": recipe.budget.big, "skip": recipe.budget.skip}),
        "row.seed_losses": (row.seed_losses, {}),
    }
    for name, (said, found) in expected.items():
        if said != found:
            yield f"{name}: the entry says {said}, its recipe {found}"


def _check_source(claimed: Entry) -> None:
    """Raises ValueError where the router that is installed is not the entry's."""
    package, name = claimed.head.package, claimed.row.router
    try:
        kind = registry.load(name)
    except ValueError as error:
        raise ValueError(f"it needs package {package.name} {package.version}: {error}") from error
    ours = registry.package_of(name)
    if source_digest(kind) != package.source or ours[0] != package.name:
        raise ValueError(
            f"router {name!r} here, of package {' '.join(ours)}, is not that of the entry, of package {package.name} "
            f"{package.version}: its source differs; install that one"
        )


def _executed(store: Store, claimed: Entry, recipe: Recipe, cache: Path, say: stages.Say) -> list[str]:
    data = stages.data_of(recipe, cache)
    backbone = stages.published_backbone(recipe, cache, say)
    weights = cache / "router.safetensors"
    weights.write_bytes(store.file("entries", claimed.digest, "router.safetensors"))
    router = recipe.new_router()
    load_weights(router, weights)
    device = stages.device_of(recipe)
    made = stages.Made(router.to(device), cache, claimed.digest)
    row = stages.scored(recipe, backbone, made, data, say)
    here = {"versions": claimed.head.provenance.versions, "device": claimed.head.provenance.device}
    wrong = [*differences(claimed.row, row, 0.0 if environment(device) == here else ELSEWHERE)]
    if wrong:
        return wrong
    try:
        check_budget(row)
        check_conformance(recipe, row)
        check_looking_ahead(row, backbone.module, router, data)
    except ValueError as error:
        return [f"row: {error}"]
    return []


def _retrained(claimed: Entry, recipe: Recipe, cache: Path, say: stages.Say) -> Iterator[str]:
    data = stages.data_of(recipe, cache)
    backbone, router = stages.made(recipe, data, say)
    row = stages.scored(recipe, backbone, router, data, say)
    for holdout, score in claimed.row.shown.items():
        again = row.shown[holdout].loss
        if abs(score.loss - again) > RETRAINED:
            yield (
                f"row.{'scores' if row.scores else 'subset'}.{holdout}.loss: the entry says {score.loss:.4f}, a router "
                f"trained again by its recipe reaches {again:.4f}: its weights do not come from its recipe"
            )


def differences(claimed: Row, found: Row, tolerance: float) -> Iterator[str]:
    """Fields of a row that differ, but for the seconds; where numbers must be equal, its sequences' losses too."""
    yield from _differing(claimed.to_json(), found.to_json(), tolerance, "row")
    for part in () if tolerance else PARTS:
        for holdout, score in getattr(found, part).items():
            said = getattr(claimed, part).get(holdout)
            for name, value in score.sequences._asdict().items():
                if said is not None and not np.array_equal(value, getattr(said.sequences, name)):
                    yield f"sequences.safetensors {part}/{holdout}/{name}: it holds other values than come out"


def _differing(said: Any, found: Any, tolerance: float, path: str) -> Iterator[str]:
    if isinstance(said, dict) and isinstance(found, dict) and {*said} == {*found}:
        for key in said:
            if key != "seconds_per_token":
                yield from _differing(said[key], found[key], tolerance, f"{path}.{key}")
    elif isinstance(said, (list, tuple)) and isinstance(found, (list, tuple)) and len(said) == len(found):
        for number, pair in enumerate(zip(said, found, strict=True)):
            yield from _differing(*pair, tolerance, f"{path}.{number}")
    elif not _alike(said, found, tolerance):
        yield f"{path}: the entry says {said}, it comes out as {found}"


def _alike(said: Any, found: Any, tolerance: float) -> bool:
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (said, found))
    if numbers and tolerance:
        return math.isclose(said, found, rel_tol=tolerance, abs_tol=tolerance)
    return bool(said == found)
