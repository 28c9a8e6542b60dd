"""An entry run again, from its own files alone: what was claimed is compared with what comes out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import to_builtins

from duo import stages
from duo.evaluation.bootstrap import mean_interval
from duo.evaluation.provenance import environment
from duo.evaluation.row import PARTS, Row
from duo.leaderboard.entry import entry
from duo.leaderboard.entry.entry import Entry
from duo.leaderboard.entry.recipe import from_yaml
from duo.leaderboard.entry.rules import check_budget, check_conformance, check_looking_ahead
from duo.recipe.schema import Recipe
from duo.routing import registry
from duo.routing.source import source_digest
from duo.storage.store import Store
from duo.storage.weights import load_weights

ELSEWHERE = 1e-4  # relative difference that another platform's rounding may make
SWAPPED = 1e-3  # mean relative difference of what single sequences give there
RETRAINED = 5e-3  # nats that a router trained again may differ by on another platform


def verify(store: Store, digest: str, say: stages.Say, retrain: bool = False) -> list[str]:
    """What of an entry is not so, a sentence each; none: everything that can be run again gives what it says.

    Backbone and tokens are fetched by digest into an empty cache, the router gets the weights of the entry (or, to
    `retrain`, is trained by the entry's recipe), and every hold-out is routed, run and metered again. Where versions
    and device are those of the entry, all numbers must be equal; elsewhere within 1e-4.

    Raises:
        ValueError: the entry cannot be read, or cannot be run here: its router is not installed, or is another one.
    """
    wrong: list[str] = []
    seeing = Store(store.location, wrong.append)  # goes on with changed files, to name what is changed in them
    try:
        claimed = entry.read(seeing, digest)
        _check_source(claimed)
        recipe = from_yaml(claimed.recipe)
    except ValueError as error:
        if wrong:
            return [*wrong, str(error)]
        raise
    wrong += _inconsistent(claimed)
    at_store = replace(recipe, leaderboard=replace(recipe.leaderboard, store=store.location))
    with tempfile.TemporaryDirectory() as folder:
        try:
            wrong += (_retrained if retrain else _executed)(seeing, claimed, at_store, Path(folder), say)
        except ValueError as error:
            if not wrong:
                raise
            wrong.append(str(error))
    return [*dict.fromkeys(wrong)]


def _inconsistent(claimed: Entry) -> Iterator[str]:
    """Fields that follow from others, or from what is installed, and do not."""
    version, ours = claimed.head.package.version, registry.package_of(claimed.row.router)[1]
    if version != ours:
        yield f"package.version: the entry says {version}, the same source is {ours} here"
    if claimed.row.seed_losses:
        yield "row.seed_losses: an entry is of one seed"
    for part in PARTS:
        for holdout, score in getattr(claimed.row, part).items():
            found = mean_interval(score.sequences.loss_N, score.sequences.tokens_N)
            if not _alike(list(score.loss_interval or ()), list(found or ()), 1e-9):
                yield f"row.{part}.{holdout}.loss_interval: it says {score.loss_interval}, its losses give {found}"


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
    weights.write_bytes(store.file("entries", claimed.digest, weights.name, to_builtins(claimed.head)))
    router = recipe.new_router()
    try:
        load_weights(router, weights)
    except ValueError as error:
        raise ValueError(f"{weights.name} is none of the router's: {error.__cause__}") from error
    device = stages.device_of(recipe)
    made = stages.Made(router.to(device), cache, claimed.digest)
    row = stages.scored(recipe, backbone, made, data, say)
    tolerance = _tolerance(claimed, device, say)
    wrong = [*differences(claimed.row, row, tolerance)]
    if wrong:
        return wrong
    try:
        check_budget(row)
        check_conformance(recipe, row)
        check_looking_ahead(row, backbone.module, router, data, recipe.seed)
    except ValueError as error:
        return [f"row: {error}"]
    return []


def _tolerance(claimed: Entry, device: torch.device, say: stages.Say) -> float:
    """0 where versions and device are those of the entry."""
    there = {"versions": claimed.head.provenance.versions, "device": claimed.head.provenance.device}
    same = environment(device) == there
    say("comparing", "exactly: same versions and device" if same else f"within {ELSEWHERE}: made on {there}")
    return 0.0 if same else ELSEWHERE


def _retrained(store: Store, claimed: Entry, recipe: Recipe, cache: Path, say: stages.Say) -> list[str]:
    data = stages.data_of(recipe, cache)
    backbone, router = stages.made(recipe, data, say)
    row = stages.scored(recipe, backbone, router, data, say)
    tolerance = RETRAINED if _tolerance(claimed, stages.device_of(recipe), say) else ELSEWHERE
    wrong = []
    for holdout, score in claimed.row.shown.items():
        again = row.shown[holdout].loss
        say("retrained", f"{holdout}: {again:.5f}, the entry says {score.loss:.5f}")
        if abs(score.loss - again) > tolerance:
            wrong.append(
                f"row.{'scores' if row.scores else 'subset'}.{holdout}.loss: the entry says {score.loss:.4f}, a router "
                f"trained again by its recipe reaches {again:.4f}: its weights do not come from its recipe"
            )
    return wrong


def differences(claimed: Row, found: Row, tolerance: float) -> Iterator[str]:
    """Fields of a row that differ, but for the seconds, and its sequences."""
    yield from _differing(claimed.to_json(), found.to_json(), tolerance, "row")
    for part in PARTS:
        for holdout, score in getattr(found, part).items():
            said = getattr(claimed, part).get(holdout)
            for name, value in score.sequences._asdict().items():
                if said is not None and not _same_array(getattr(said.sequences, name), value, tolerance):
                    yield f"sequences.safetensors {part}/{holdout}/{name}: it holds other values than come out"


def _same_array(said: np.ndarray, found: np.ndarray, tolerance: float) -> bool:
    """Whether arrays are equal; of numbers, with a tolerance, up to a few choices that fall out otherwise."""
    if not tolerance or said.shape != found.shape or found.dtype.kind != "f":
        return np.array_equal(said, found)
    return float(np.abs(said - found).mean()) <= SWAPPED * max(float(np.abs(found).mean()), 1.0)


def _differing(said: Any, found: Any, tolerance: float, path: str) -> Iterator[str]:
    if isinstance(said, dict) and isinstance(found, dict) and {*said} == {*found}:
        for key in said:
            if key != "seconds_per_token":
                yield from _differing(said[key], found[key], tolerance, f"{path}.{key}")
    elif not _alike(said, found, tolerance):
        yield f"{path}: the entry says {said}, it comes out as {found}"


def _alike(said: Any, found: Any, tolerance: float) -> bool:
    """Whether values are equal; of numbers that are not whole, within the relative tolerance."""
    if isinstance(said, (list, tuple)) and isinstance(found, (list, tuple)):
        pairs = zip(said, found, strict=False)
        return len(said) == len(found) and all(_alike(*pair, tolerance) for pair in pairs)
    if tolerance and isinstance(said, float) and isinstance(found, float):
        return math.isclose(said, found, rel_tol=tolerance, abs_tol=1e-9)
    return bool(said == found)
