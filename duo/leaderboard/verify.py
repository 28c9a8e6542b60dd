"""An entry run again, from its own files alone: what was claimed is compared with what comes out."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec import to_builtins

from duo.evaluation.format import find_scores
from duo.evaluation.intervals import estimate_loss
from duo.evaluation.provenance import environment
from duo.evaluation.row import Row
from duo.evaluation.score import TIMES
from duo.leaderboard.entry import entry
from duo.leaderboard.entry.entry import Entry
from duo.leaderboard.entry.recipe import from_yaml
from duo.leaderboard.entry.router import open_router
from duo.leaderboard.entry.rules import check_budget, check_conformance
from duo.leaderboard.sealed.prefixes import check_looking_ahead
from duo.leaderboard.sealed.process import PATIENCE
from duo.leaderboard.sealed.scoring import Subject
from duo.leaderboard.sealed.training import retrain as train_again
from duo.recipe import Recipe
from duo.routing import registry
from duo.routing.source import source_digest
from duo.stages.cache import Made
from duo.stages.source import backbone_source
from duo.storage.store import Store
from duo.training.trainer import join_world

ELSEWHERE = 1e-4  # relative difference that another platform's rounding may make
SWAPPED = 1e-3  # mean relative difference of what single sequences give there
PROMISED = 1e-7  # of what a search promised: which candidates it computes together, and so how it rounds, may change
RETRAINED = 5e-3  # nats that a router trained again may differ by on another platform

log = logging.getLogger(__name__)


class Verdict(NamedTuple):
    """What executing an entry again found."""

    wrong: list[str]
    """What is not as the entry says, a sentence each; none: everything that can be run again is."""
    other_source: bool
    """Whether the router that was run has another source than the entry's."""


def verify(store: Store, digest: str, retrain: bool = False, patience: float = PATIENCE) -> Verdict:
    """Executes an entry again and compares.

    Backbone and tokens are fetched by digest into an empty cache, the router gets the weights of the entry (or, to
    `retrain`, is trained by the entry's recipe where there is no hold-out), and every hold-out is routed and metered
    again where there are no labels, then replayed here. Where versions and device are those of the entry, all numbers
    must be equal; elsewhere within 1e-4.

    Raises:
        ValueError: the entry cannot be read, or cannot be run here: its router is not installed.
    """
    wrong: list[str] = []
    seeing = Store(store.location, wrong.append)  # goes on with changed files, to name what is changed in them
    try:
        claimed = entry.read(seeing, digest)
        other_source = _has_other_source(claimed)
        recipe = from_yaml(claimed.recipe)
    except ValueError as error:
        if wrong:
            return Verdict([*wrong, str(error)], other_source=False)
        raise
    wrong += _find_inconsistencies(claimed, other_source)
    at_store = replace(recipe, leaderboard=replace(recipe.leaderboard, store=store.location))
    with tempfile.TemporaryDirectory() as folder:
        try:
            wrong += (_retrain if retrain else _execute)(seeing, claimed, at_store, Path(folder), patience)
        except ValueError as error:
            if not wrong:
                raise
            wrong.append(str(error))
    return Verdict([*dict.fromkeys(wrong)], other_source)


def _has_other_source(claimed: Entry) -> bool:
    """Whether the router that is installed has another source than the entry's; ValueError: it is not installed."""
    package, name = claimed.head.package, claimed.row.router
    try:
        kind = registry.load(name)
    except ValueError as error:
        raise ValueError(f"it needs package {package.name} {package.version}: {error}") from error
    ours = registry.package_of(name)
    if ours[0] != package.name:
        raise ValueError(
            f"router {name!r} here is of package {' '.join(ours)}, the entry's of package {package.name} "
            f"{package.version}: install that one"
        )
    return source_digest(kind) != package.source


def _find_inconsistencies(claimed: Entry, other_source: bool) -> Iterator[str]:
    """Fields that follow from others, or from what is installed, and do not."""
    version, ours = claimed.head.package.version, registry.package_of(claimed.row.router)[1]
    if version != ours and not other_source:
        yield f"package.version: the entry says {version}, the same source is {ours} here"
    if claimed.row.seed_losses:
        yield "row.seed_losses: an entry is of one seed"
    for path, score in find_scores(claimed.row):
        found = estimate_loss(score.sequences).interval
        # nothing is drawn for it: only rounding may differ
        if not _alike(list(score.loss_interval or ()), list(found or ()), 1e-9):
            where = f"row.{path.replace('/', '.')}.loss_interval"
            yield f"{where}: it says {score.loss_interval}, its losses give {found}"


def _execute(store: Store, claimed: Entry, recipe: Recipe, cache: Path, patience: float) -> list[str]:
    """What differs where the entry's weights are run."""
    source, device = backbone_source(recipe), join_world(recipe.trainer)
    data = source.open_data(cache)
    backbone = source.train_or_load(data, device)
    router = open_router(store, claimed, recipe, cache)
    subject = Subject(recipe, backbone, Made(router.to(device), cache, claimed.digest), patience, claimed.head.name)
    sealed = subject.score(data)
    if wrong := [*differences(claimed.row, sealed.row, _tolerance(claimed, recipe))]:
        return wrong
    try:
        check_budget(sealed.row)
        check_conformance(recipe, sealed.row)
        check_looking_ahead(subject, sealed)
    except ValueError as error:
        return [f"row: {error}"]
    return []


def _tolerance(claimed: Entry, recipe: Recipe) -> float:
    """0 where versions and device are those of the entry."""
    there = {"versions": claimed.head.provenance.versions, "device": claimed.head.provenance.device}
    if environment(join_world(recipe.trainer)) == there:
        log.info("comparing  exactly: same versions and device")
        return 0.0
    log.info("comparing  within %s: made on %s", ELSEWHERE, there)
    return ELSEWHERE


def _retrain(store: Store, claimed: Entry, recipe: Recipe, cache: Path, patience: float) -> list[str]:
    """What differs where the router is trained again by the entry's recipe."""
    source = backbone_source(recipe)
    data = source.open_data(cache)
    backbone = source.train_or_load(data, join_world(recipe.trainer))
    router = train_again(claimed.recipe, backbone, data, cache, patience)
    row = Subject(recipe, backbone, router, patience, claimed.head.name).score(data).row
    tolerance = RETRAINED if _tolerance(claimed, recipe) else ELSEWHERE
    wrong = []
    for holdout, score in claimed.row.shown.items():
        again = row.shown[holdout].loss
        log.info("retrained  %s: %.5f, the entry says %.5f", holdout, again, score.loss)
        if abs(score.loss - again) > tolerance:
            part = "scores" if row.scores else "subset"
            wrong.append(
                f"row.{part}.{holdout}.loss: the entry says {score.loss:.4f}, a router trained again by its recipe "
                f"reaches {again:.4f}: its weights do not come from its recipe"
            )
    return wrong


def differences(claimed: Row, found: Row, tolerance: float) -> Iterator[str]:
    """Fields of a row that differ, but for times, and its sequences."""
    yield from _differing(to_builtins(claimed), to_builtins(found), tolerance, "row")
    said = dict(find_scores(claimed))
    for path, score in find_scores(found):
        for name, value in score.sequences._asdict().items():
            if path in said and not _same_array(getattr(said[path].sequences, name), value, tolerance):
                yield f"sequences.safetensors {path}/{name}: it holds other values than come out"


def _same_array(said: np.ndarray, found: np.ndarray, tolerance: float) -> bool:
    """Whether arrays are equal; of numbers, with a tolerance, up to a few choices that fall out otherwise."""
    if not tolerance or said.shape != found.shape or found.dtype.kind != "f":
        return np.array_equal(said, found)
    return float(np.abs(said - found).mean()) <= SWAPPED * max(float(np.abs(found).mean()), 1.0)


def _differing(said: Any, found: Any, tolerance: float, path: str) -> Iterator[str]:
    if isinstance(said, dict) and isinstance(found, dict) and {*said} == {*found}:
        for key in said:
            if key not in TIMES:
                allowed = max(tolerance, PROMISED) if key == "promised_loss" else tolerance
                yield from _differing(said[key], found[key], allowed, f"{path}.{key}")
    elif not _alike(said, found, tolerance):
        yield f"{path}: the entry says {said}, it comes out as {found}"


def _alike(said: Any, found: Any, tolerance: float) -> bool:
    """Whether values are equal; of numbers that are not whole, within the relative tolerance."""
    if isinstance(said, (list, tuple)) and isinstance(found, (list, tuple)):
        pairs = zip(said, found, strict=False)
        return len(said) == len(found) and all(_alike(*pair, tolerance) for pair in pairs)
    if tolerance and isinstance(said, float) and isinstance(found, float):
        return math.isclose(said, found, rel_tol=tolerance, abs_tol=1e-9)  # near 0 no relative difference is small
    return bool(said == found)
