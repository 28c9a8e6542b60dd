"""Planned memory beside measured: of a step of stage 1 with AdamW and of a pass in evaluation, each in a process.

    OMP_NUM_THREADS=1 python benchmarks/planned.py

Measured is the most that the process holds above what it held before the model (`VmHWM` of Linux, reset then), once
small models of the same kind have loaded all kernels. glibc gives large tensors back as soon as they are freed
(MALLOC_MMAP_THRESHOLD_), so that this is what is needed, and not what lies about.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import torch
from pairs import begin, status

from duo import Backbone, BackboneConfig, Budget, Spec, Trial
from duo.backbone.dense import Dense
from duo.plan.memory import evaluation_memory, training_memory
from duo.routing.meter import Meter
from routers.random import Random

CASES: dict[str, dict[str, Any]] = {
    "train, many tokens": {"work": "train", "layers": 4, "width": 256, "big": 1024, "small": 64, "tokens": 4096},
    "train, many parameters": {"work": "train", "layers": 4, "width": 512, "big": 4096, "small": 256, "tokens": 256},
    "train, opt": {
        "work": "train", "family": "opt", "layers": 4, "width": 256, "big": 1024, "small": 64, "tokens": 4096,
    },
    "train, large vocabulary": {
        "work": "train", "layers": 2, "width": 256, "big": 1024, "small": 64, "tokens": 2048, "vocabulary": 32000,
    },
    "train, grouped heads": {
        "work": "train", "layers": 4, "width": 256, "big": 1024, "small": 64, "tokens": 4096, "key_value_heads": 1,
    },
    "train, checkpointed": {
        "work": "train", "layers": 8, "width": 256, "big": 1024, "small": 64, "tokens": 4096, "checkpointed": True,
    },
    "train, checkpointed, wide": {
        "work": "train", "layers": 2, "width": 256, "big": 4096, "small": 64, "tokens": 4096, "vocabulary": 64,
        "checkpointed": True,
    },
    "train, checkpointed, opt": {
        "work": "train", "family": "opt", "layers": 4, "width": 512, "big": 512, "small": 64, "tokens": 4096,
        "vocabulary": 64, "checkpointed": True,
    },
    "evaluate, many tokens": {"work": "evaluate", "layers": 8, "width": 256, "big": 1024, "small": 64, "tokens": 8192},
    "evaluate, opt": {
        "work": "evaluate", "family": "opt", "layers": 8, "width": 256, "big": 1024, "small": 64, "tokens": 8192,
    },
    "evaluate, many parameters": {
        "work": "evaluate", "layers": 4, "width": 1024, "big": 4096, "small": 256, "tokens": 2048,
    },
}  # fmt: skip
LENGTH = 256


def work(case: dict[str, Any]) -> tuple[float, float]:
    """Planned and measured bytes of one case, in this process."""
    case = dict(case)
    kind, tokens, checkpointed = case.pop("work"), case.pop("tokens"), case.pop("checkpointed", False)
    shape = BackboneConfig(**{"heads": 4, "vocabulary": 1024, "positions": LENGTH} | case)
    small = BackboneConfig(**{**case, "heads": 4, "vocabulary": 64, "width": 16, "big": 32, "small": 8, "layers": 1})
    run(kind, small, 2 * LENGTH, checkpointed)
    before = begin()
    run(kind, shape, tokens, checkpointed)
    measured = status("VmHWM") - before
    if kind == "train":
        planned = training_memory(shape, tokens)
        return (planned.recomputing() if checkpointed else planned).peak(), measured
    return evaluation_memory(shape, tokens).peak(), measured


def run(kind: str, shape: BackboneConfig, tokens: int, checkpointed: bool = False) -> None:
    """Two steps of stage 1, the second with AdamW's states; or a pass, all big, with its loss."""
    torch.manual_seed(0)
    backbone = Backbone(shape)
    backbone.dense = Dense(checkpointed=checkpointed)
    p_big = 0.5 if kind == "train" else 1.0
    router = Random(Spec(shape.layers, shape.width, Budget(0.5)), p_big=p_big)
    tokens_BT = torch.randint(shape.vocabulary, (tokens // LENGTH, LENGTH + 1))
    trial = Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:], meter=Meter(enabled=False))
    if kind == "evaluate":
        with torch.no_grad():
            router.loss(trial)
        return
    optimizer = torch.optim.AdamW(backbone.parameters(), fused=True)
    for _ in range(2):
        router.loss(trial).backward()
        optimizer.step()
        optimizer.zero_grad()


def measure(name: str) -> tuple[float, float]:
    """Planned and measured bytes of one case, in a process of its own."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, __file__, name], env=environment, stdout=subprocess.PIPE, check=True, text=True
    )
    planned, measured = json.loads(ran.stdout)
    return planned, measured


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(work(CASES[sys.argv[1]])))
    else:
        print(f"{'':28}{'planned':>12}{'measured':>12}{'ratio':>8}")
        for each in CASES:
            ours, theirs = measure(each)
            print(f"{each:28}{ours / 1e6:>9,.0f} MB{theirs / 1e6:>9,.0f} MB{ours / theirs:>8.3f}", flush=True)
