"""A report of the paper: its parts made, its claims judged, its page written."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from duo.backbone import BackboneConfig
from duo.evaluation.provenance import provenance
from duo.evaluation.trace import Trace
from duo.evaluation.verdict import SEEDS, Claim
from duo.recipe import Recipe
from duo.report.paper import Evidence, write_report
from duo.stages.report import Measured, measure_report
from duo.storage.processes import is_distributed

DENSE, HALF_COST = "dense", "dense_equal_flops"
"""Figure 8's part, and its row of a dense model that costs what half of the modules cost."""


class Report(NamedTuple):
    """What a report found."""

    claims: list[Claim]
    failed: dict[str, str]
    """Why something is not in it, by name."""
    page: Path


def reproduce(recipe: Recipe, command: str, folder: Path, cache: Path, device: torch.device) -> Report:
    """Makes what is not there yet, and writes the report anew.

    Raises:
        ValueError: there are several processes.
    """
    if is_distributed():
        raise ValueError("a report is made by one process: leave out trainer.devices and trainer.num_nodes")
    _check_budgets(recipe)
    _check_costs(recipe)
    found = measure_report(recipe, folder, cache, command, device)
    evidence = Evidence(
        recipe.backbone.layers,
        found.comparisons,
        found.traces,
        found.candidates,
        found.texts,
        mark_words(found),
        origins=find_origins(recipe),
    )
    claims = write_report(folder, evidence, _facts(recipe, found, command, device), found.failed)
    return Report(claims, found.failed, folder / "report.html")


def _check_budgets(recipe: Recipe) -> None:
    """Raises ValueError where traces stand at other budgets than claims of a backbone of so many layers are about."""
    layers = recipe.backbone.layers
    for budget, big in Evidence(layers).budgets.items():
        for name, spec in recipe.report.traces.items():
            if spec and name.endswith(f" at {budget}") and spec.get("at", {}).get("budget.big", big) != big:
                at = spec["at"]["budget.big"]
                raise ValueError(
                    f"report.traces.{name}.at: budget.big={at}, but of backbone.layers={layers} `{budget}` are {big}"
                )


def _check_costs(recipe: Recipe) -> None:
    """Raises ValueError where the dense model of half the cost costs something else than half big, half small."""
    part = recipe.parts.get(DENSE)
    if part is None:
        return
    shape: BackboneConfig = part.backbone
    mean = (shape.big + shape.small) // 2
    for rows in part.groups.values():
        if HALF_COST in rows and (big := rows[HALF_COST].backbone.big) != mean:
            key = f"report.parts.{DENSE}.compare.rows.{HALF_COST}.backbone.big"
            raise ValueError(
                f"{key}={big}, but half of the modules of backbone.big={shape.big} and "
                f"backbone.small={shape.small} cost what {mean} costs: set {key}={mean}"
            )


def mark_words(found: Measured) -> dict[str, dict[str, np.ndarray]]:
    """By hold-out, which of the traced labels begin a line."""
    traces = found.traces.get("all small", {})
    return {holdout: {"line_start_BT": mark_line_starts(first, found.texts)} for holdout, (first, *_) in traces.items()}


def find_origins(recipe: Recipe) -> dict[str, str]:
    """By part and trace, the backbones that it stands on, where they are not the report's own."""
    parts = {}
    for name, part in recipe.parts.items():
        rows = part.rows()
        own = [row for row in rows if not _is_reports(row, recipe)]
        if own:
            parts[name] = "; ".join(dict.fromkeys(_describe_backbone(row) for row in own))
    traces = {name: spec["part"] for name, spec in recipe.report.traces.items() if spec}
    return parts | {name: parts[part] for name, part in traces.items() if part in parts}


def _is_reports(row: Recipe, recipe: Recipe) -> bool:
    """Whether a row stands on the backbone that the report is of."""
    published = [each.leaderboard.backbone for each in (row, recipe)]
    if any(published):
        return published[0] == published[1]
    return row.identity("backbone", "stage1") == recipe.identity("backbone", "stage1")


def _describe_backbone(row: Recipe) -> str:
    """A backbone as captions name it."""
    if row.leaderboard.backbone:
        return f"published as {row.leaderboard.backbone[:12]}"
    config, stage1 = row.backbone, row.stage1
    steps = stage1.steps + (stage1.before.steps if stage1.before else 0)
    return (
        f"trained here: {config.family}, {config.layers} layers, width {config.width}, big {config.big}, "
        f"{steps} steps, p_big {stage1.p_big:g}, p_skip {stage1.p_skip:g}"
    )


def mark_line_starts(trace: Trace, texts: list[bytes]) -> np.ndarray:
    """line_start_BT: labels that hold the first sign of their line that is no white space.

    Where a sequence begins in the middle of a line, nothing of that line begins one.
    """
    marked_BT = np.zeros(trace.labels_BT.shape, dtype=bool)
    for row, (tokens_T, labels_T) in enumerate(zip(trace.tokens_BT, trace.labels_BT, strict=True)):
        fresh = False
        for place, token in enumerate([tokens_T[0], *labels_T]):
            for sign in texts[token] if token >= 0 else b"":  # padding says nothing
                if chr(sign).isspace():
                    fresh = fresh or sign == ord("\n")
                elif fresh:
                    fresh, marked_BT[row, max(place - 1, 0)] = False, place > 0
    return marked_BT


def _facts(recipe: Recipe, found: Measured, command: str, device: torch.device) -> dict[str, str]:
    """What a report says of itself."""
    about = provenance(recipe.seed, device, 0.0, command, {})
    config, published = recipe.backbone, recipe.leaderboard.backbone
    shape = f"{config.family}, {config.layers} layers, width {config.width}, big {config.big}, small {config.small}"
    rows = [row for comparison in found.comparisons.values() for row in comparison.rows][:1]
    searched = [
        f"{holdout}: {score.tokens:,} tokens of {score.documents} documents"
        for row in rows
        for holdout, score in row.subset.items()
    ]
    return {
        "backbone": shape + (f", published as {published[:12]}" if published else ""),
        "searched": "; ".join(searched),
        "seeds of routers": _tell_seeds(found),
        "command": str(about["command"]),
        "commit": str(about["commit"]),
        "versions": ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
    }


def _tell_seeds(found: Measured) -> str:
    """How many seeds learned routers have, and what is to be typed where claims about them need more."""
    rows = [row for comparison in found.comparisons.values() for row in comparison.rows]
    seeds = sorted({row.seeds for row in rows if row.learned and not row.failed})
    if not seeds:
        return "none learned"
    said = " to ".join(dict.fromkeys((str(seeds[0]), str(seeds[-1]))))
    more = f": claims about them are undecided below {SEEDS} (report.seeds={SEEDS})" if seeds[0] < SEEDS else ""
    return said + more
