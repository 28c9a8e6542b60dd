"""Time and memory of a training step under each knob of `trainer`, as ratios to the plain step.

    OMP_NUM_THREADS=1 python benchmarks/knobs.py [--widths 64 256 512] [--pairs 7] [--backend inductor] [--quick]

Times: in one process, alternating, medians of pairs with quartiles, once everything is compiled. Memory: the most
that a step holds above what lies there between steps (`VmHWM` of Linux, reset behind a first step, which compiles),
each knob in a process of its own; glibc gives large tensors back at once there, so that this is what is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pairs import backbone_of, begin, show_ratios, status, time_in_turn

from duo import Backbone, Budget, Spec, Trial
from duo.routing.meter import Meter
from duo.storage.memory import keep_freed_memory
from duo.training.options import dense_of
from routers.random import Random

KNOBS: dict[str, dict[str, Any]] = {
    "plain": {},
    "compile": {"compile": True},
    "checkpointing": {"activation_checkpointing": True},
    "accumulation": {"accumulate_grad_batches": 4},
    "bf16": {"precision": "bf16-mixed"},
    "compile bf16": {"compile": True, "precision": "bf16-mixed"},
    "checkpointing accumulation": {"activation_checkpointing": True, "accumulate_grad_batches": 4},
}
"""What a recipe says of `trainer`."""
BATCH, TOKENS = 16, 128


def stepping(backbone: Backbone, options: dict[str, Any], backend: str) -> Callable[[], None]:
    """One optimizer step of stage 1 under these options."""
    config = backbone.config
    router = Random(Spec(config.layers, config.width, Budget(0.5)), p_big=0.5)
    tokens_BT, sequence_B = torch.randint(config.vocabulary, (BATCH, TOKENS + 1)), torch.arange(BATCH)
    optimizer = torch.optim.AdamW(backbone.parameters(), 1e-4, fused=True)
    dense = dense_of({key: backend if key == "compile" else value for key, value in options.items()})
    parts, half = options.get("accumulate_grad_batches", 1), "precision" in options

    def step() -> None:
        backbone.dense = dense
        for part_BT, part_B in zip(tokens_BT.chunk(parts), sequence_B.chunk(parts), strict=True):
            trial = Trial(backbone, part_BT[:, :-1], part_BT[:, 1:], sequence_B=part_B, meter=Meter(enabled=False))
            with torch.autocast("cpu", torch.bfloat16, enabled=half, cache_enabled=False):  # as Lightning does
                loss = router.loss(trial)
            (loss / parts).backward()
        torch.nn.utils.clip_grad_norm_(backbone.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure_time(width: int, pairs: int, backend: str) -> None:
    """Prints the ratios of one width."""
    works = {name: stepping(backbone_of(width), options, backend) for name, options in KNOBS.items()}
    ready = {name: lambda step=step: step for name, step in works.items()}
    title = f"D={width}, step of {BATCH} x {TOKENS}, compiled by {backend}"
    show_ratios(title, time_in_turn(ready, pairs), [(name, "plain") for name in KNOBS if name != "plain"])


def measure_memory(width: int, backend: str, knobs: Sequence[str]) -> None:
    """Prints each knob's peak, and its ratio to that of the first, the plain one."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    peaks: dict[str, int] = {}
    for name in knobs:
        arguments = [sys.executable, __file__, "--widths", str(width), "--backend", backend, "--knob", name]
        ran = subprocess.run(arguments, env=environment, stdout=subprocess.PIPE, check=True, text=True)
        peaks[name] = json.loads(ran.stdout)
        print(f"    {name}: +{peaks[name] / 1e6:,.0f} MB, {peaks[name] / peaks['plain']:.2f} of plain", flush=True)


def peak(width: int, name: str, backend: str) -> int:
    """Bytes that a second step holds at most above what lies there before it, in this process."""
    step = stepping(backbone_of(width), KNOBS[name], backend)
    step()
    before = begin()
    step()
    return status("VmHWM") - before


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256, 512])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--backend", default="inductor")
    parser.add_argument("--knob", choices=[*KNOBS], help="print the bytes of this one's peak alone")
    parser.add_argument(
        "--quick", action="store_true", help="one pair at the smallest width, compiled by aot_eager, with fewer peaks"
    )
    chosen = parser.parse_args()
    if chosen.knob:
        print(peak(chosen.widths[0], chosen.knob, chosen.backend))
    else:
        keep_freed_memory()
        if chosen.quick:
            chosen.widths, chosen.pairs, chosen.backend = [64], 1, "aot_eager"
        for each in chosen.widths:
            measure_time(each, chosen.pairs, chosen.backend)
            if sys.platform == "linux":
                measure_memory(each, chosen.backend, ["plain", "checkpointing"] if chosen.quick else [*KNOBS])
