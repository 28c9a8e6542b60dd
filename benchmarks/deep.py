"""Deep models: how long routers are built, how good fixed patterns are, what local search takes for a token.

    OMP_NUM_THREADS=2 python benchmarks/deep.py [recipe=NAME key=value ...] [--cache DIR] [--draws 16] [--positions 8]
    OMP_NUM_THREADS=2 python benchmarks/deep.py --shape 30 576 1536 96 49152

The backbone is the recipe's (default: `deep`), trained here or found in the cache; with `--shape` (layers, width, big,
small, vocabulary) a random one on random tokens, whose seconds are those of a trained one of its size. Patterns are
found on the calibration sets as `fixed_best` finds them, and judged on the hold-outs' subsets.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from approximate import along, from_recipe, trained
from torch import Tensor

from duo import Backbone, BackboneConfig, Budget, Spec, Trial
from duo.backbone import BIG
from duo.routing import registry
from duo.routing.climb import start_patterns
from duo.routing.compose import even_patterns
from duo.routing.meter import Meter
from duo.search import draw_patterns
from duo.search.patterns import counts_of
from routers.fixed_best import CLIMBED, FixedBest
from routers.oracle import Oracle


def print_building(layers: int) -> None:
    """Seconds that each shipped router takes to be built."""
    print(f"| router, {layers} layers, half of them big | seconds |\n|---|---|")
    for name, (point, *_) in registry.available().items():
        if point.value.startswith("routers."):
            registry.load(name)
            begin = time.process_time()
            registry.build(name, Spec(layers, 64, Budget(layers // 2)))
            print(f"| {name} | {time.process_time() - begin:.3f} |", flush=True)


def random_trials(
    layers: int, width: int, big: int, small: int, vocabulary: int, length: int
) -> tuple[Backbone, list[Trial]]:
    """A random backbone of a shape, and two calibration sets of random tokens."""
    torch.manual_seed(0)
    heads = max(width // 64, 1)
    shape = BackboneConfig(
        layers=layers, width=width, big=big, small=small, vocabulary=vocabulary, heads=heads, tied=True
    )
    backbone = Backbone(shape).eval()
    return backbone, [
        Trial(backbone, token_BT[:, :-1], token_BT[:, 1:], domain=domain, meter=Meter(enabled=False))
        for domain, token_BT in zip("ab", torch.randint(vocabulary, (2, 1, length + 1)), strict=True)
    ]


@torch.no_grad()
def print_patterns(calibration: list[Trial], trials: list[Trial], draws: int, tokens: int) -> None:
    """Losses of fixed patterns on the trials, and how long the search for the best one takes."""
    layers = calibration[0].layers
    spec = Spec(layers, 64, Budget(layers // 2))
    (count_M,) = count_CM = counts_of(layers, spec.budget)
    router, begin, wall = FixedBest(spec, tokens), time.process_time(), time.perf_counter()
    router.calibrate(calibration)
    seconds, wall = time.process_time() - begin, time.perf_counter() - wall
    few = router.tokens // CLIMBED
    print(f"\nclimb on {few} tokens of each calibration set: {seconds:.0f} s, {wall:.0f} s by the wall")
    if not trials:
        return
    torch.manual_seed(0)
    half_L = torch.ones(layers).long()
    ways: dict[str, Tensor] = {
        "climbed (`fixed_best`)": router.pattern_PL,
        "layers whose flip hurts all big most": start_patterns(calibration, count_CM, few),
        "alternate": torch.tensor([[1, 2] * (layers // 2) + [1] * (layers % 2)]),
        "spread evenly": even_patterns(count_CM),
        "first half": half_L.index_fill(0, torch.arange(layers // 2), BIG)[None],
        "last half": half_L.index_fill(0, torch.arange(layers - layers // 2, layers), BIG)[None],
        f"mean of {draws} random": draw_patterns(count_M, draws),
        "all big": torch.full((1, layers), BIG),
    }
    print("\n| pattern | " + " | ".join(trial.domain for trial in trials) + " |\n|---|" + "---|" * len(trials))
    for name, pattern_PL in ways.items():
        losses = [[float(trial.loss(along(trial, pattern_L)).mean()) for pattern_L in pattern_PL] for trial in trials]
        print(f"| {name} | " + " | ".join(f"{sum(part) / len(part):.4f}" for part in losses) + " |", flush=True)
        if len(pattern_PL) > 1:
            print("| the lowest of these | " + " | ".join(f"{min(part):.4f}" for part in losses) + " |")


@torch.no_grad()
def print_search(calibration: list[Trial], trial: Trial, sequences: int, positions: int) -> None:
    """Seconds and layer evaluations of a token's local search, as the oracle searches."""
    router = Oracle(Spec(trial.layers, 64, Budget(trial.layers // 2)), search="local").eval()
    begin = time.process_time()
    router.calibrate(calibration)
    print(f"\noracle: {time.process_time() - begin:.0f} s to find where to start", flush=True)
    part, begin, wall = trial.part(sequences, positions), time.process_time(), time.perf_counter()
    before = trial.meter.layer_evaluations
    router.route(part)
    tokens, wall = part.tokens_BT.numel(), time.perf_counter() - wall
    print(
        f"oracle: {(time.process_time() - begin) / tokens:.3f} s a token ({wall / tokens:.3f} by the wall), "
        f"{(trial.meter.layer_evaluations - before) / tokens:.0f} layer evaluations; {sequences} sequences together"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--shape", type=int, nargs=5)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--positions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=2048, help="as of `fixed_best`; seconds grow with them")
    options = parser.parse_args()
    if options.shape:
        model, calibration = random_trials(*options.shape, options.tokens // CLIMBED)
        random_BT = torch.randint(options.shape[-1], (max(options.sequences), options.positions + 1))
        searched = Trial(model, random_BT[:, :-1], random_BT[:, 1:])
        trials = []
    else:
        print_building(48)
        settings = (
            options.settings
            if any("recipe=" in one for one in options.settings)
            else ["recipe=deep", *options.settings]
        )
        calibration, trials = trained(*from_recipe(settings, options.cache), 16, 64)
        searched = trials[0]
    print_patterns(calibration, trials, options.draws, options.tokens)
    for sequences in options.sequences:
        print_search(calibration, searched, sequences, options.positions)
