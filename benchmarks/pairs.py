"""What the benchmarks share: works timed in turn in one process, ratios, peaks of memory, and the model outside duo.

Times are of the processor where torch has one thread, which programs beside it disturb little, else of the wall.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from duo import Backbone, BackboneConfig

Prepare = Callable[[], Callable[[], object]]
"""Makes ready, off the clock, what is then called once, on it."""


def backbone_of(width: int, layers: int = 12) -> Backbone:
    """A random backbone of the default proportions."""
    torch.manual_seed(0)
    heads = max(width // 64, 2)
    return Backbone(BackboneConfig(layers=layers, width=width, heads=heads, big=4 * width, small=width // 4))


def llama_of(config: BackboneConfig) -> nn.Module:
    """The Llama of transformers, of the dimensions that a backbone has all big."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocabulary, hidden_size=config.width, intermediate_size=config.big,
            num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
            max_position_embeddings=config.positions, rms_norm_eps=config.norm_epsilon,
            tie_word_embeddings=config.tied, attn_implementation="sdpa",
        )
    )  # fmt: skip


def time_in_turn(works: Mapping[str, Prepare], pairs: int) -> dict[str, list[float]]:
    """Seconds of each work, so many times, alternating; once before, to warm up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for pair in range(pairs + 1):
        for name in works if pair % 2 else reversed([*works]):
            work = works[name]()
            start = clock()
            work()
            if pair:
                seconds[name].append(clock() - start)
    return seconds


def product_rate(size: int = 1024) -> float:
    """FLOPs a second of large matrix products here, by the clock of `time_in_turn`."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    seconds = time_in_turn({"product": lambda: lambda: left @ right}, 5)["product"]
    return 2 * size**3 / statistics.median(seconds)


def status(name: str) -> int:
    """Bytes that the system notes of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


def begin() -> int:
    """Bytes that this process takes now; its peak (VmHWM) begins anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the pairs' ratios."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def ratio(ours: list[float], theirs: list[float]) -> str:
    """The median of the pairs' ratios, and their quartiles.

    >>> ratio([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    '1.00 [0.50, 1.50]'
    """
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def show_ratios(title: str, seconds: dict[str, list[float]], against: list[tuple[str, str]]) -> None:
    """Prints the median seconds of each work, and the ratios that are asked for."""
    times = ", ".join(f"{name} {statistics.median(spent):.4g} s" for name, spent in seconds.items())
    print(f"{title}: {times}")
    for ours, theirs in against:
        print(f"    {ours} / {theirs}: {ratio(seconds[ours], seconds[theirs])}", flush=True)
