"""A report of the paper: its parts made, its claims judged, its page written."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from duo.evaluation.provenance import provenance
from duo.evaluation.verdict import Claim
from duo.recipe import Recipe
from duo.report.paper import Evidence, write_report
from duo.stages.report import Measured, measure_report
from duo.storage.processes import is_distributed


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
    found = measure_report(recipe, folder, cache, command, device)
    evidence = Evidence(
        recipe.backbone.layers, found.comparisons, found.traces, found.candidates, found.texts, mark_words(found)
    )
    claims = write_report(folder, evidence, _facts(recipe, found, command, device), found.failed)
    return Report(claims, found.failed, folder / "report.html")


def mark_words(found: Measured) -> dict[str, dict[str, np.ndarray]]:
    """By hold-out, which of the traced labels begin a line."""
    ends_line_V = np.array([text.rstrip(" \t").endswith("\n") for text in found.texts], dtype=bool)
    if not len(ends_line_V):
        return {}
    # padding begins no line, and nobody scores it
    return {
        holdout: {"line_start_BT": ends_line_V[np.maximum(trace.tokens_BT, 0)]}
        for traces in found.traces.values()
        for holdout, trace in traces.items()
        if "all small" in found.traces and trace is found.traces["all small"][holdout]
    }


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
        "command": str(about["command"]),
        "commit": str(about["commit"]),
        "versions": ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
    }
