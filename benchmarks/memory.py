"""Peak memory of loading a model, of a pass with its losses and of a training step, above what is there before.

    OMP_NUM_THREADS=1 python benchmarks/memory.py [--vocabulary 49152] [--layers 30] [--width 576] [--work WORK]

Each work runs in a process of its own: `load` reads such a model as transformers saves it (above the process before,
beside the size of its weights); above the loaded model, `evaluate` scores a batch of 16 x 128 tokens under random
routes and without gradients, `train` makes a step of stage 1 on that batch beside AdamW's states, `train checkpointed`
does so with trainer.activation_checkpointing, `train small` with stage1.learn=small. As in `planned.py`, what a process
takes at most is Linux's `VmHWM`, reset behind a small model of the same kind.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import torch
from pairs import begin, status

from duo import Backbone, BackboneConfig, Budget, Spec, Trial
from duo.backbone.dense import Dense
from duo.backbone.pretrained import read_backbone
from duo.routing.meter import Meter
from routers.random import Random

WORKS = ("load", "evaluate", "train", "train checkpointed", "train small")


def shape_of(options: Namespace) -> BackboneConfig:
    """A Llama of SmolLM2's proportions, with small FFNs of a sixteenth of the big ones' width."""
    heads, big = max(options.width // 64, 1), options.width * 8 // 3
    return BackboneConfig(
        layers=options.layers, width=options.width, heads=heads, key_value_heads=max(heads // 3, 1), big=big,
        small=max(big // 16, 1), vocabulary=options.vocabulary,
    )  # fmt: skip


def save_model(folder: str, options: Namespace) -> None:
    """The model as transformers saves it, in a process that ends."""
    code = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); from pairs import llama_of; from memory import *\n"
        "options = Namespace(**json.loads(sys.argv[2])); llama_of(shape_of(options)).save_pretrained(sys.argv[3])"
    )
    subprocess.run(
        [sys.executable, "-c", code, Path(__file__).parent, json.dumps(vars(options)), folder], check=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def work(name: str, options: Namespace) -> tuple[float, float]:
    """Bytes at most above what there was before, and processor seconds, of one work in this process."""
    config, small = shape_of(options), shape_of(Namespace(layers=1, width=64, vocabulary=512))
    if name == "load":
        with tempfile.TemporaryDirectory() as folder:
            save_model(folder, options)
            before, start = begin(), time.process_time()
            read_backbone(Path(folder), config)
            return status("VmHWM") - before, time.process_time() - start
    score(name, Backbone(small))  # loads all kernels
    torch.manual_seed(0)
    backbone = Backbone(config)
    before, start = begin(), time.process_time()
    score(name, backbone)
    return status("VmHWM") - before, time.process_time() - start


def score(name: str, backbone: Backbone) -> None:
    """A pass with its losses, or a step of training."""
    backbone.dense = Dense(checkpointed=name == "train checkpointed")
    config = backbone.config
    router = Random(Spec(config.layers, config.width, Budget(0.5)), p_big=0.5)
    tokens_BT = torch.randint(config.vocabulary, (16, 129))
    trial = Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:], meter=Meter(enabled=False))
    if name == "evaluate":
        with torch.no_grad():
            router.loss(trial)
        return
    for key, parameter in backbone.named_parameters():
        parameter.requires_grad_(name != "train small" or "ffn.small." in key)
    optimizer = torch.optim.AdamW([each for each in backbone.parameters() if each.requires_grad], fused=True)
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # AdamW's states are there in every step but the first
    optimizer.zero_grad()
    router.loss(trial).backward()
    optimizer.step()


def measure(name: str, options: Namespace) -> None:
    """Prints what one work takes, in a process of its own."""
    sizes = [f"--{key}={getattr(options, key)}" for key in ("vocabulary", "layers", "width")]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, *sizes, "--here", name]
    ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    taken, seconds = json.loads(ran.stdout)
    print(f"{name}: +{taken / 1e6:,.0f} MB at most, {seconds:.1f} s of the processor", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--work", choices=WORKS, nargs="+", default=WORKS)
    parser.add_argument("--here", choices=WORKS, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="a small model, to see that it runs")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.layers, chosen.width, chosen.vocabulary = 2, 64, 2048
    if chosen.here:
        print(json.dumps(work(chosen.here, chosen)))
    else:
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in Backbone(shape_of(chosen)).parameters())
        print(f"{size:,} parameters, {4 * size / 1e6:,.0f} MB")
        for each in chosen.work:
            measure(each, chosen)
