"""How evenly a hold-out's search is shared: times of single sequences are recorded here, and shared by more workers.

    OMP_NUM_THREADS=1 python benchmarks/balance.py [--sequences 40] [--workers 64] [--quick]

Each sequence is searched alone (the committed oracle at 6 of 12, processor seconds); 1,024 sequences are drawn from
these times. `strided` gives every worker every so many-th one, as evaluation does; `queue` the next one that is free.
"""

from __future__ import annotations

import argparse
import random
import time

import torch

from duo import Backbone, BackboneConfig, Budget, Trial
from duo.plan import balance
from duo.routing.meter import Meter
from duo.search.patterns import patterns_of

HOLDOUT = 1024


def record(sequences: int, tokens: int) -> list[float]:
    """Processor seconds of the search of each sequence."""
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(width=32, big=64, small=8, vocabulary=512)).eval()
    pattern_PL, seconds = patterns_of(12, Budget(6)), []
    for _ in range(sequences + 1):
        tokens_BT = torch.randint(512, (1, tokens + 1))
        trial = Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:], meter=Meter(enabled=False))
        start = time.process_time()
        trial.search(pattern_PL, [Budget(6)])
        seconds.append(time.process_time() - start)
    return seconds[1:]  # the first one pays for what is loaded once


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=40)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="few sequences, to see that it runs")
    chosen = parser.parse_args()
    recorded = record(4 if chosen.quick else chosen.sequences, 2 if chosen.quick else 8)
    least, most, mean = min(recorded), max(recorded), sum(recorded) / len(recorded)
    print(f"{len(recorded)} sequences: {least:.3f} to {most:.3f} s, mean {mean:.3f}")
    drawn = random.Random(0).choices(recorded, k=HOLDOUT)
    for name, queue in (("strided", False), ("queue", True)):
        found = balance(drawn, chosen.workers, queue)
        print(f"{name:8} {chosen.workers} workers: {found.seconds:.2f} s, busy {found.efficiency:.1%} of the time")
