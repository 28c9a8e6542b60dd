"""Peak memory of a pass with its losses, and of a training step, above what the loaded model takes.

    OMP_NUM_THREADS=1 python benchmarks/memory.py [--vocabulary 49152] [--layers 30] [--width 576] [--quick]

Each work runs in a process of its own: `evaluate` scores a batch of 16 x 128 tokens under random routes and without
gradients, `train` makes one step of stage 1 with AdamW on the same batch. What a process takes at most comes from
`resource.getrusage`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from argparse import Namespace

import torch

from duo import Backbone, BackboneConfig, Budget, Spec, Trial
from duo.routing.meter import Meter
from routers.random import Random

WORKS = ("evaluate", "train")


def peak() -> int:
    """Bytes that this process has taken at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def work(options: Namespace) -> tuple[int, float]:
    """Bytes at most above the loaded model, and processor seconds, of one work in this process."""
    torch.manual_seed(0)
    big, small = options.width * 8 // 3, options.width // 6
    heads = max(options.width // 64, 1)
    shape = BackboneConfig(
        layers=options.layers, width=options.width, heads=heads, key_value_heads=max(heads // 3, 1), big=big,
        small=small, vocabulary=options.vocabulary,
    )  # fmt: skip
    backbone = Backbone(shape)
    router = Random(Spec(options.layers, options.width, Budget(0.5)), p_big=0.5)
    tokens_BT = torch.randint(options.vocabulary, (16, 129))
    trial = Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:], meter=Meter(enabled=False))
    optimizer = torch.optim.AdamW(backbone.parameters(), fused=True)
    before, start = peak(), time.process_time()
    if options.work == "train":
        router.loss(trial).backward()
        optimizer.step()
    else:
        with torch.no_grad():
            router.loss(trial)
    return peak() - before, time.process_time() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--work", choices=WORKS, help="this one, in this process")
    parser.add_argument("--quick", action="store_true", help="a small model, to see that it runs")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.layers, chosen.width, chosen.vocabulary = 2, 64, 2048
    if chosen.work:
        print(json.dumps(work(chosen)))
    else:
        sizes = [f"--{name}={getattr(chosen, name)}" for name in ("vocabulary", "layers", "width")]
        for name in WORKS:
            ran = subprocess.run([sys.executable, __file__, *sizes, "--work", name], stdout=subprocess.PIPE, check=True)
            taken, seconds = json.loads(ran.stdout)
            print(f"{name}: +{taken / 1e6:,.0f} MB at most, {seconds:.1f} s of the processor", flush=True)
