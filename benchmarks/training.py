"""A random-routed training step against the same backbone all big: ratios in one process, alternating, median of pairs.

    python benchmarks/training.py [--widths 64 128 256] [--pairs 7] [--quick]

Prints for each width the seconds of both steps and the median ratio. The aim is at most 0.80 at D=256 (V=2048, T=128).
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from duo import Backbone, BackboneConfig, Budget, Router, Spec, Trial
from duo.routing.meter import Meter
from routers.fixed import Fixed
from routers.random import Random


def train_once(backbone: Backbone, router: Router, optimizer: torch.optim.Optimizer, tokens_BT: torch.Tensor) -> float:
    """Seconds of one step: forward, backward, clipping, optimizer."""
    start = time.perf_counter()
    trial = Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:], meter=Meter(enabled=False))
    router.loss(trial).backward()
    torch.nn.utils.clip_grad_norm_(backbone.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - start


def measure(width: int, pairs: int) -> None:
    """Prints the row of one width."""
    torch.manual_seed(0)
    config = BackboneConfig(width=width, heads=width // 32, big=4 * width, small=width // 4)
    backbone = Backbone(config)
    optimizer = torch.optim.AdamW(backbone.parameters(), 1e-4, fused=True)
    tokens_BT = torch.randint(config.vocabulary, (16, 129))
    spec = Spec(config.layers, width, Budget(0.5))
    routers = {"random": Random(spec, p_big=0.5), "all big": Fixed(spec, pattern=[2] * config.layers)}
    seconds = {name: [] for name in routers}
    for pair in range(pairs + 1):
        for name, router in routers.items():
            spent = train_once(backbone, router, optimizer, tokens_BT)
            if pair:  # the first warms up
                seconds[name].append(spent)
    ratio = statistics.median(ours / theirs for ours, theirs in zip(*seconds.values(), strict=True))
    shown = ", ".join(f"{name} {statistics.median(times):.3f} s" for name, times in seconds.items())
    print(f"D={width:<4} {shown}, ratio {ratio:.3f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one pair at the smallest width, to see that it runs")
    options = parser.parse_args()
    for width in [64] if options.quick else options.widths:
        measure(width, 1 if options.quick else options.pairs)
