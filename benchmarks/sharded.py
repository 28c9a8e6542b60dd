"""A training step on several processes under ddp and under fsdp2: time, and what each process holds.

    torchrun --nproc-per-node 2 benchmarks/sharded.py [--width 256] [--layers 12] [--pairs 5] [--only fsdp2]

Times are the first process's, alternating, the medians of pairs. Bytes are of weights, gradients and AdamW's states
behind a step; with `--only`, in processes of its own, also the most that a second step holds above what lay there
before the first (`VmHWM` of Linux), beside what is planned.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from pairs import backbone_of, begin, show_ratios, status, time_in_turn
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh

from duo import Budget, Spec, Trial
from duo.plan.memory import training_memory
from duo.routing.meter import Meter
from duo.training.strategies import shard
from routers.random import Random

BATCH, TOKENS = 16, 128


class Stage(nn.Module):
    """A backbone under random routes, as stage 1 trains it."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.backbone = backbone_of(width, layers)
        self.router = Random(Spec(layers, width, Budget(0.5)), p_big=0.5)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """The loss of a batch."""
        trial = Trial(self.backbone, tokens_BT[:, :-1], tokens_BT[:, 1:], meter=Meter(enabled=False))
        return self.router.loss(trial)

    training_step = forward


def stepping(strategy: str, width: int, layers: int) -> tuple[Callable[[], None], Callable[[], dict[str, int]]]:
    """One optimizer step, and the bytes that this process holds behind it."""
    stage: Any = Stage(width, layers)
    config = stage.backbone.config
    if strategy == "fsdp2":
        shard(stage, init_device_mesh("cpu", (distributed.get_world_size(),)), "32-true")
        ran = stage.training_step
    else:
        ran = nn.parallel.DistributedDataParallel(stage)
    optimizer = torch.optim.AdamW(stage.parameters(), 1e-4, fused=True)
    tokens_BT = torch.randint(config.vocabulary, (BATCH // distributed.get_world_size(), TOKENS + 1))

    def step() -> None:
        optimizer.zero_grad()
        ran(tokens_BT).backward()
        torch.nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        optimizer.step()

    def held() -> dict[str, int]:
        states = [value for state in optimizer.state.values() for value in state.values()]
        parts = {"weights": stage.parameters(), "gradients": [p.grad for p in stage.parameters()], "optimizer": states}
        return {name: sum(local(tensor).nbytes for tensor in tensors) for name, tensors in parts.items()}

    return step, held


def local(tensor: Any) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", choices=("ddp", "fsdp2"))
    chosen = parser.parse_args()
    distributed.init_process_group("gloo")
    speaks = distributed.get_rank() == 0
    before = status("VmRSS")
    works = {
        name: stepping(name, chosen.width, chosen.layers) for name in ("ddp", "fsdp2") if chosen.only in (None, name)
    }
    seconds = time_in_turn({name: lambda step=step: step for name, (step, _) in works.items()}, chosen.pairs)
    if speaks and not chosen.only:
        title = (
            f"D={chosen.width}, {chosen.layers} layers, step of {BATCH} x {TOKENS} on {distributed.get_world_size()}"
        )
        show_ratios(title, seconds, [("fsdp2", "ddp")])
    for name, (step, held) in works.items():
        told = ", ".join(f"{part} {count / 1e6:,.1f} MB" for part, count in held().items())
        if chosen.only:
            begin()
            step()
            config = backbone_of(chosen.width, chosen.layers).config
            world = distributed.get_world_size()
            plan = training_memory(config, BATCH * TOKENS // world, devices=world, sharded=name == "fsdp2")
            told += f"; at most {(status('VmHWM') - before) / 1e6:,.0f} MB, planned {plan.peak() / 1e6:,.0f} MB"
        if speaks:
            print(f"    {name}: {told}", flush=True)
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
