"""Approximate searches against the exact one: regret in nats per token, and what they spend of its layer evaluations.

    python benchmarks/approximate.py [RUN_FOLDER | recipe=NAME key=value ...] [--budget 6] [--widths 1 2 4 8 16]
        [--sequences 8] [--tokens 32] [--free 12] [--cache DIR]

RUN_FOLDER is what `python -m duo.run` left; a recipe's backbone is trained, or found in the cache (default: a random
backbone and random tokens). With `--free` so many layers are routed, spread evenly, and the others are pinned: so the
regret of searches of deep models is measured where all patterns of the free layers can be listed. Searches start as
routers do, from the layers whose flip hurts all big most, or from the pattern that is climbed to from there. Behind a
reference, the run of the climbed pattern, every token is compared with its own optimum; committed contexts part after
the first token, so there only the mean loss is compared. The tokens are the first of each hold-out's subset.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from duo import Backbone, BackboneConfig, Budget, Run, Trial, recipe, replay
from duo.data import TextData
from duo.routing.climb import climb_to_fixed, start_patterns
from duo.search import patterns_of
from duo.search.patterns import counts_of
from duo.stages import backbone_source
from duo.stages.cache import default_cache
from duo.stages.stage3 import calibration_trials
from duo.storage.weights import load_weights

START_TOKENS = 512  # of each calibration set, to find the start patterns


class Spent(NamedTuple):
    """The losses of a search, and its costs."""

    loss_N: Tensor
    layer_evaluations: int
    flops: float
    seconds: float


def from_run(folder: Path, cache: Path | None) -> tuple[Backbone, TextData]:
    """A run's backbone and data."""
    made = recipe.load(str(folder / "recipe.yaml"))
    backbone = Backbone(made.backbone).eval()
    load_weights(backbone, folder / "backbone.safetensors")
    own = folder / "cache" if made.cache == "none" else Path(made.cache) if made.cache else default_cache()
    data = TextData(made.data, made.backbone.vocabulary, cache or own)
    data.setup()
    return backbone, data


def from_recipe(settings: list[str], cache: Path | None) -> tuple[Backbone, TextData]:
    """A recipe's backbone and data, the recipe named among the settings."""
    name = next((one.removeprefix("recipe=") for one in settings if one.startswith("recipe=")), "router_budget6")
    source = backbone_source(recipe.load(name, [one for one in settings if not one.startswith("recipe=")]))
    data = source.open_data(cache or default_cache())
    return source.train_or_load(data, torch.device("cpu")).module.eval(), data


def trained(backbone: Backbone, data: TextData, sequences: int, tokens: int) -> tuple[list[Trial], list[Trial]]:
    """Trials to find the start pattern, and to search."""
    subsets = [Trial.of(data.subset(name)[0], backbone).part(sequences, tokens) for name in data.holdouts]
    return calibration_trials(backbone, data), subsets


def untrained(sequences: int, tokens: int) -> tuple[Backbone, list[Trial]]:
    """A random backbone, and trials of it on random tokens."""
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig()).eval()
    tokens_BT = torch.randint(backbone.config.vocabulary, (sequences, tokens + 1))
    return backbone, [Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:])]


def pin_all_but(backbone: Backbone, free: int) -> None:
    """Routes so many layers, spread evenly over all."""
    layers = backbone.config.layers
    routed = {round((place + 0.5) * layers / free - 0.5) for place in range(free)}
    backbone.pin([layer for layer in range(layers) if layer not in routed])


def along(trial: Trial, pattern_L: Tensor) -> Run:
    """The run of a fixed pattern."""
    return trial.run(replay(pattern_L.expand(*trial.tokens_BT.shape, -1)))


def spent(
    trials: list[Trial], pattern_PL: Tensor, fixed_L: Tensor, budget: Budget, context: str, **how: object
) -> Spent:
    """One search of all trials."""
    losses, evaluations, flops, seconds = [], 0, 0.0, 0.0
    for trial in trials:
        behind = along(trial, fixed_L) if context == "reference" else context
        before, begin = (trial.meter.layer_evaluations, trial.meter.flops), time.process_time()
        found = trial.search(pattern_PL, [budget], behind, **how)
        seconds += time.process_time() - begin
        losses.append(found.loss_BTG.flatten())
        evaluations += trial.meter.layer_evaluations - before[0]
        flops += trial.meter.flops - before[1]
    return Spent(torch.cat(losses), evaluations, flops, seconds)


@torch.no_grad()
def measure(calibration: list[Trial], trials: list[Trial], budget: Budget, widths: list[int]) -> None:
    """Prints a table for each context."""
    layers = trials[0].layers
    count_1M = counts_of(layers, budget)
    flips_1L, climbed_1L = (find(calibration, count_1M, START_TOKENS) for find in (start_patterns, climb_to_fixed))
    fixed_L = climbed_1L[0]
    fixed_N = torch.cat([trial.loss(along(trial, fixed_L)).flatten() for trial in trials])
    print(f"climbed pattern {''.join(map(str, fixed_L.tolist()))}, {len(fixed_N)} tokens, {layers} layers routed")
    ways = [("local", width, "flips", flips_1L) for width in widths]
    ways += [("local", max(widths), "climbed", climbed_1L)] + [("beam", width, "", flips_1L) for width in widths]
    for context in ("reference", "committed"):
        exact = spent(trials, patterns_of(layers, budget), fixed_L, budget, context)
        gap = float((fixed_N - exact.loss_N).mean())
        print(f"\n{context}: exact {exact.loss_N.mean():.4f} nats, {gap:.4f} below the climbed pattern;", end=" ")
        print(f"{exact.layer_evaluations / len(fixed_N):.0f} layer evaluations a token, {exact.seconds:.1f} s\n")
        print("| method | width | start | regret | of the gain | optima found | layer evaluations | FLOPs | seconds |")
        print("|---|---|---|---|---|---|---|---|---|")
        for method, width, start, start_1L in ways:
            tried = spent(trials, start_1L, fixed_L, budget, context, method=method, width=width)
            over_N = tried.loss_N - exact.loss_N
            optimal = f"{(over_N < 1e-5).double().mean():.0%}" if context == "reference" else ""
            ratios = [getattr(tried, name) / getattr(exact, name) for name in Spent._fields[1:]]
            print(
                f"| {method} | {width} | {start} | {over_N.mean():.4f} | {over_N.mean() / gap:.1%} | {optimal} | "
                + " | ".join(f"{ratio:.3f}" for ratio in ratios)
                + " |",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("where", nargs="*")
    parser.add_argument("--budget", type=int, default=6)
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--free", type=int, help="so many layers are routed, the others always big")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--quick", action="store_true", help="four tokens and one width, to see that it runs")
    options = parser.parse_args()
    size = (1, 4) if options.quick else (options.sequences, options.tokens)
    if options.where:
        named = any("=" in one for one in options.where)
        found = from_recipe(options.where, options.cache) if named else from_run(Path(*options.where), options.cache)
        chosen = trained(*found, *size)
        model = found[0]
    else:
        model, trials = untrained(*size)
        chosen = trials, trials
    if options.free:
        pin_all_but(model, options.free)
    measure(*chosen, Budget(options.budget), [2] if options.quick else options.widths)
