"""A report's parts: its comparisons, and routes token by token; one that fails says why, and the others go on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache as remember
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from duo.backbone import Backbone
from duo.data.batch import Batch
from duo.data.datamodule import TextData
from duo.data.token_text import token_texts
from duo.evaluation.comparison import Comparison
from duo.evaluation.trace import Candidates, Trace, compare_candidates, load_arrays, save_arrays, trace
from duo.progress import at
from duo.recipe import Recipe, digest, name_group
from duo.routing.router import Router, learns
from duo.routing.source import module_digest
from duo.search.patterns import MOST_LISTED
from duo.stages.cache import Made, hold
from duo.stages.compare import run_comparison, seeded_recipes
from duo.stages.output import hold_output, keep_result, load_finished
from duo.stages.source import backbone_source
from duo.stages.stage3 import train_or_load

BUDGETS = "budgets"
"""The part on whose backbone candidates are compared."""
SHOWN = 1
"""Batches of a full hold-out that passages are taken from: to be looked at, not averaged."""

Arrays = TypeVar("Arrays", Trace, Candidates)
log = logging.getLogger(__name__)


@dataclass
class Measured:
    """What a report is made of."""

    comparisons: dict[str, Comparison] = field(default_factory=dict)
    traces: dict[str, dict[str, list[Trace]]] = field(default_factory=dict)
    """By name and hold-out; of a router that learned, by seed."""
    candidates: dict[str, Candidates] = field(default_factory=dict)
    """By hold-out."""
    texts: list[bytes] = field(default_factory=list)
    """What each token of the vocabulary stands for."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why something is not there, by part, row or trace."""


class _Place(NamedTuple):
    """Where a report is made."""

    folder: Path
    cache: Path
    command: str
    device: torch.device


def measure_report(recipe: Recipe, folder: Path, cache: Path, command: str, device: torch.device) -> Measured:
    """Runs what is not there yet; what another backbone or another version of a router left there is not used.

    Args:
        recipe: with a report.
        folder: the report's; each part is a run of its own in `parts/`.
        cache: of backbones, routers, rows and traces.
        command: what was typed.
        device: where to compute.
    """
    found, place = Measured(), _Place(folder, cache, command, device)
    for name, part in recipe.parts.items():
        with _noting(found, f"part {name}"):
            log.info("part  %s", name)
            with at(f"part {name}"):
                found.comparisons[name] = _compare(part, name, place)
            for group, rows in found.comparisons[name].groups.items():
                failed = {row: told.failed for row, told in rows.items() if told.failed}
                found.failed |= {f"part {name}, row {row} {group}".strip(): why for row, why in failed.items()}
    opened = remember(lambda name: backbone_source(recipe.parts[name]).open_data(cache))
    for name, spec in recipe.report.traces.items():
        if spec is not None and spec["part"] in found.comparisons:
            with _noting(found, f"trace {name}"), at(f"trace {name}"):
                found.traces[name] = _trace(recipe.parts[spec["part"]], spec, opened(spec["part"]), device)
    if BUDGETS in found.comparisons:
        with _noting(found, "candidates"):
            data = opened(BUDGETS)
            found.texts = token_texts(data.tokenizer)
            with at("candidates"):
                found.candidates = dict(_compare_candidates(recipe.parts[BUDGETS], data, device))
    return found


@contextmanager
def _noting(found: Measured, name: str) -> Iterator[None]:
    """A block whose failure is noted, and ends nothing else: a full disk, no memory left, a mistake of ours."""
    try:
        yield
    except Exception as error:
        log.warning("failed  %s: %s", name, error)
        found.failed[name] = str(error) or type(error).__name__


def _compare(part: Recipe, name: str, place: _Place) -> Comparison:
    """A part's comparison, in a folder that is named after its recipe: another recipe's is left alone."""
    folder = place.folder / "parts" / f"{name}-{part.digest[:8]}"
    with hold_output(part, name, folder):
        try:
            found = load_finished(part, folder)
        except ValueError as error:
            log.info("part  %s is made anew: %s", name, error)
            found = None
        if found is None:
            found = run_comparison(part, name, place.command, place.cache, place.device)
            keep_result(folder, found)
        assert isinstance(found, Comparison)
        return found


def _trace(part: Recipe, spec: dict[str, Any], data: TextData, device: torch.device) -> dict[str, list[Trace]]:
    """A row's routes on every hold-out, of a router that learns from each of the part's seeds."""
    group = name_group(spec.get("at", {}))
    rows = part.groups.get(group or next(iter(part.groups)), {})
    if spec["row"] not in rows:
        raise ValueError(f"part {spec['part']} has no row {spec['row']} at {group or 'all'}")
    found: dict[str, list[Trace]] = {holdout: [] for holdout in data.holdouts}
    for recipe in seeded_recipes(rows[spec["row"]], part.compare.seeds):
        ours = data.batched(recipe.data.batch_size)
        backbone, router = train_or_load(recipe, backbone_source(recipe), ours, device, spec["row"])
        for holdout, traces in found.items():
            traces.append(_trace_kept(recipe, spec.get("on", "subset"), ours, holdout, backbone, router))
        if not learns(router.module):
            break  # other seeds would find the same
    return found


def _trace_kept(
    recipe: Recipe, on: str, data: TextData, holdout: str, backbone: Made[Backbone], router: Made[Router]
) -> Trace:
    """A router's routes on a hold-out, out of the cache where they are there."""
    key = [router.digest, holdout, on, recipe.identity("data", "seed")]
    look = lambda: trace(backbone.module, router.module, _batches(data, on, holdout), recipe.seed)  # noqa: E731
    return _kept(data.cache, Trace, key, look)


def _batches(data: TextData, on: str, holdout: str) -> Sequence[Batch]:
    """What is traced: the subset of searches, the same sequences whole, or the first batch of the full hold-out."""
    if on == "holdout":
        return [*islice(data.holdout(holdout), SHOWN)]
    return data.subset(holdout, whole=on == "sequences")


def _compare_candidates(part: Recipe, data: TextData, device: torch.device) -> Iterator[tuple[str, Candidates]]:
    """What candidates are worth on every hold-out's subset; nothing of a model too deep to list them."""
    recipe = next(iter(part.rows()))
    if 2**recipe.spec.layers > MOST_LISTED:
        return
    ours = data.batched(recipe.data.batch_size)
    backbone: Made[Backbone] = backbone_source(recipe).train_or_load(ours, device)
    for holdout in data.holdouts:
        key = [backbone.digest, data.digests.whole, holdout, recipe.identity("data", "seed")]

        def look(holdout: str = holdout) -> Candidates:
            return compare_candidates(backbone.module, ours.subset(holdout), recipe.seed)

        yield holdout, _kept(data.cache, Candidates, key, look)


def _kept(cache: Path, kind: type[Arrays], key: list[Any], look: Callable[[], Arrays]) -> Arrays:
    """Arrays out of the cache, made if they are not there."""
    identity = digest([kind.__name__, *key, module_digest(trace.__module__)])
    folder = cache / "traces" / identity[:16]
    with hold(folder):
        if not (folder / "arrays.safetensors").exists():
            save_arrays(look(), folder / "arrays.safetensors")
        return load_arrays(kind, folder / "arrays.safetensors")
