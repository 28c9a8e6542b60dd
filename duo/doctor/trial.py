"""A ten-second test of what every run relies on, on a toy."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from duo.doctor.finding import Finding
from duo.routing.compose import replay
from duo.routing.registry import describe_error
from duo.routing.router import Router
from duo.routing.trial import Trial
from duo.search import patterns_of
from duo.storage.weights import load_weights, save_weights, weights_digest
from duo.testing.lab import SPEC, Lab

CLOSE = 1e-4  # nats: what rounding may move


def self_test() -> Iterator[Finding]:
    """Each test, and how long it took."""
    for name, test in {"route replayed": replayed, "search": searched, "weights": kept}.items():
        start = time.perf_counter()
        try:
            said, wrong = test(), ""
        except Exception as error:
            said = describe_error(error)
            wrong = f"self-test, {name}: {said}; reinstall torch and duo-llm, and report it if it stays"
        yield Finding(name, f"{said} ({time.perf_counter() - start:.1f} s)", wrong)


def replayed() -> str:
    """The loss of a searched route, replayed, is the one that the search promised."""
    trial = _trial()
    found = trial.search(patterns_of(SPEC.layers, SPEC.budget), [SPEC.budget])
    with torch.no_grad():
        loss_BT = trial.loss(trial.run(replay(found.route_BTGL[:, :, 0])))
    return _compare(loss_BT, found.loss_BTG[..., 0], "its replay", "the search")


def searched() -> str:
    """The best of all patterns at every token, by the search and by one pass for each."""
    trial, pattern_PL = _trial(), patterns_of(SPEC.layers, SPEC.budget)
    found = trial.search(pattern_PL, [SPEC.budget], "same")
    with torch.no_grad():
        routes = [pattern_L.expand(*trial.tokens_BT.shape, -1) for pattern_L in pattern_PL]
        loss_PBT = torch.stack([trial.loss(trial.run(replay(route_BTL))) for route_BTL in routes])
    return _compare(found.loss_BTG[..., 0], loss_PBT.amin(0), "the search", "one pass for each pattern")


def kept() -> str:
    """Weights that are saved and loaded have the same digest."""
    backbone, other = Lab(Router).backbone, Lab(Router).backbone
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    with tempfile.TemporaryDirectory() as folder:
        save_weights(backbone, Path(folder) / "weights.safetensors")
        load_weights(other, Path(folder) / "weights.safetensors")
    if (ours := weights_digest(backbone)) != (theirs := weights_digest(other)):
        raise ValueError(f"weights were saved as {ours[:12]} and loaded as {theirs[:12]}")
    return f"saved and loaded as {ours[:12]}"


def _trial() -> Trial:
    lab = Lab(Router)
    return Trial.of(lab.batch(2, 6), lab.backbone)


def _compare(found_BT: torch.Tensor, other_BT: torch.Tensor, one: str, other: str) -> str:
    difference = float((found_BT - other_BT).abs().max())
    if not difference < CLOSE:
        raise ValueError(f"{one} and {other} differ by {difference:.2g} nats")
    return f"{one} and {other} agree to {difference:.1g} nats"
