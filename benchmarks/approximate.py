"""Approximate searches against the exact one: regret in nats per token, and what they spend of its layer evaluations.

    python benchmarks/approximate.py [RUN_FOLDER] [--budget 6] [--widths 1 2 4 8 16] [--sequences 8] [--tokens 32]

RUN_FOLDER is what `python -m duo.run` left (default: a random backbone and random tokens). Behind a reference, the run
of the best fixed pattern, every token is compared with its own optimum; committed contexts part after the first token,
so there only the mean loss is compared. The tokens are the first of each hold-out's subset.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import torch
from platformdirs import user_cache_path
from torch import Tensor

from duo import Backbone, BackboneConfig, Budget, Run, Trial, replay, top
from duo.data import TextData
from duo.recipe import schema as recipe
from duo.routing.calibration import climb
from duo.routing.compose import even_scores
from duo.search import patterns_of
from duo.search.patterns import counts_of
from duo.storage.weights import load_weights

START_TOKENS = 2048  # of each calibration set, to find the start pattern


class Spent(NamedTuple):
    """The losses of a search, and its costs."""

    loss_N: Tensor
    layer_evaluations: int
    flops: float
    seconds: float


def trained(folder: Path, sequences: int, tokens: int) -> tuple[list[Trial], list[Trial]]:
    """A run's trials: to find the start pattern, and to search."""
    made = recipe.load(str(folder / "recipe.yaml"))
    backbone = Backbone(made.backbone).eval()
    load_weights(backbone, folder / "backbone.safetensors")
    cache = folder / "cache" if made.cache == "none" else Path(made.cache or user_cache_path("duo"))
    data = TextData(made.data, made.backbone.vocabulary, cache)
    data.setup()
    calibration = [Trial.of(batch, backbone) for name in data.calibration for batch in data.calibration_set(name)]
    return calibration, [Trial.of(data.subset(name)[0], backbone).part(sequences, tokens) for name in data.holdouts]


def untrained(sequences: int, tokens: int) -> tuple[list[Trial], list[Trial]]:
    """Trials of a random backbone on random tokens."""
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig()).eval()
    tokens_BT = torch.randint(backbone.config.vocabulary, (sequences, tokens + 1))
    trials = [Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:])]
    return trials, trials


def along(trial: Trial, pattern_L: Tensor) -> Run:
    """The run of a fixed pattern."""
    return trial.run(replay(pattern_L.expand(*trial.tokens_BT.shape, -1)))


def spent(trials: list[Trial], start_PL: Tensor, budget: Budget, context: str, method: str, width: int) -> Spent:
    """One search of all trials."""
    losses, evaluations, flops, seconds = [], 0, 0.0, 0.0
    pattern_PL = patterns_of(trials[0].layers, budget) if method == "exact" else start_PL
    for trial in trials:
        reference = along(trial, start_PL[0])
        before, begin = (trial.meter.layer_evaluations, trial.meter.flops), time.perf_counter()
        found = trial.search(
            pattern_PL, [budget], reference if context == "reference" else context, method=method, width=width
        )
        seconds += time.perf_counter() - begin
        losses.append(found.loss_BTG.flatten())
        evaluations += trial.meter.layer_evaluations - before[0]
        flops += trial.meter.flops - before[1]
    return Spent(torch.cat(losses), evaluations, flops, seconds)


@torch.no_grad()
def measure(calibration: list[Trial], trials: list[Trial], budget: Budget, widths: list[int]) -> None:
    """Prints a table for each context."""
    count_1M = counts_of(trials[0].layers, budget)
    start_L = climb(calibration, top(even_scores(trials[0].layers), count_1M[0]), START_TOKENS)
    fixed_N = torch.cat([trial.loss(along(trial, start_L)).flatten() for trial in trials])
    print(f"start pattern {''.join(map(str, start_L.tolist()))}, {len(fixed_N)} tokens")
    for context in ("reference", "committed"):
        exact = spent(trials, start_L[None], budget, context, "exact", 1)
        gap = float((fixed_N - exact.loss_N).mean())
        print(f"\n{context}: exact {exact.loss_N.mean():.4f} nats, {gap:.4f} below the fixed pattern;", end=" ")
        print(f"{exact.layer_evaluations / len(fixed_N):.0f} layer evaluations a token, {exact.seconds:.1f} s\n")
        print("| method | width | regret | of the gain | optima found | layer evaluations | FLOPs | seconds |")
        print("|---|---|---|---|---|---|---|---|")
        for method, width in [(method, width) for method in ("local", "beam") for width in widths]:
            tried = spent(trials, start_L[None], budget, context, method, width)
            over_N = tried.loss_N - exact.loss_N
            optimal = f"{(over_N < 1e-5).double().mean():.0%}" if context == "reference" else ""
            ratios = [getattr(tried, name) / getattr(exact, name) for name in Spent._fields[1:]]
            print(
                f"| {method} | {width} | {over_N.mean():.4f} | {over_N.mean() / gap:.1%} | {optimal} | "
                + " | ".join(f"{ratio:.3f}" for ratio in ratios)
                + " |",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--budget", type=int, default=6)
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--quick", action="store_true", help="four tokens and one width, to see that it runs")
    options = parser.parse_args()
    size = (1, 4) if options.quick else (options.sequences, options.tokens)
    chosen = untrained(*size) if options.run is None else trained(options.run, *size)
    measure(*chosen, Budget(options.budget), [2] if options.quick else options.widths)
