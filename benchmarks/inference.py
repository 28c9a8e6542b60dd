"""Reading and writing under routes: ratios in one process, alternating, medians of pairs with quartiles.

    OMP_NUM_THREADS=1 python benchmarks/inference.py [--widths 64 512] [--pairs 9] [--tokens 128] [--quick]

`prefill` reads 8 sequences, `decode` writes 16 tokens behind each of so many. `llama` is transformers' Llama of the
dimensions that all big has; `pattern` spends 6 of 12 layers big, in the same layers at every token, `routed` in layers
of each token's own. Then measured time against FLOPs over budgets, both as shares of all big.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from pairs import Prepare, backbone_of, llama_of, median_ratio, show_ratios, time_in_turn
from torch import Tensor, nn

from duo import Backbone, Budget, Router, Spec
from duo.backbone import Run
from duo.backbone.flops import pass_cost
from duo.inference.decoder import Decoder
from duo.storage.memory import keep_freed_memory
from routers.fixed import Fixed
from routers.random import Random

STEPS = 16  # tokens that are written
AGAINST = [("all big", "llama"), ("pattern", "all big"), ("routed", "all big"), ("routed", "llama"),
           ("all small", "all big")]  # fmt: skip


def routers_of(backbone: Backbone) -> dict[str, Router]:
    """The routes that are timed."""
    layers = backbone.config.layers
    spec = partial(Spec, layers, backbone.config.width)
    half = spec(Budget(layers // 2).of(layers))
    fixed = {"all big": Fixed(half, pattern=[2] * layers), "all small": Fixed(half, pattern=[1] * layers)}
    return {**fixed, "pattern": Fixed(half), "routed": Random(half)}


def reading(backbone: Backbone, router: Router, tokens_BT: Tensor) -> Prepare:
    """Reads whole sequences."""

    def prepare() -> Callable[[], Run]:
        decoder = Decoder(backbone, router, torch.arange(len(tokens_BT)), tokens_BT.shape[1])
        return lambda: decoder.read(tokens_BT)

    return prepare


def writing(backbone: Backbone, router: Router, tokens_BT: Tensor) -> Prepare:
    """Reads sequences off the clock, then token by token."""

    def prepare() -> Callable[[], None]:
        decoder = Decoder(backbone, router, torch.arange(len(tokens_BT)), tokens_BT.shape[1] + STEPS)
        decoder.read(tokens_BT)

        def write() -> None:
            for _ in range(STEPS):
                decoder.read(decoder.run.logits_BTV[:, -1:].argmax(-1))

        return write

    return prepare


def llama_reading(llama: nn.Module, tokens_BT: Tensor) -> Prepare:
    """The same by transformers."""
    return lambda: torch.no_grad()(lambda: llama(tokens_BT, use_cache=True))


def llama_writing(llama: nn.Module, tokens_BT: Tensor) -> Prepare:
    """The same by transformers."""

    @torch.no_grad()
    def prepare() -> Callable[[], None]:
        found = llama(tokens_BT, use_cache=True)

        @torch.no_grad()
        def write() -> None:
            last = found
            for _ in range(STEPS):
                last_B1 = last.logits[:, -1:].argmax(-1)
                last = llama(last_B1, past_key_values=last.past_key_values, use_cache=True)

        return write

    return prepare


def measure(width: int, tokens: int, pairs: int) -> None:
    """Prints the ratios of one width."""
    backbone = backbone_of(width).eval()
    llama, routers = llama_of(backbone.config).eval(), routers_of(backbone)
    tokens_BT = torch.randint(backbone.config.vocabulary, (8, tokens))
    for title, batch, ours, theirs in (
        ("prefill, batch 8", 8, reading, llama_reading),
        ("decode, batch 1", 1, writing, llama_writing),
        ("decode, batch 8", 8, writing, llama_writing),
    ):
        works = {name: ours(backbone, router, tokens_BT[:batch]) for name, router in routers.items()}
        works["llama"] = theirs(llama, tokens_BT[:batch])
        show_ratios(f"D={width}, T={tokens}, {title}", time_in_turn(works, pairs), AGAINST)
    measure_budgets(backbone, tokens_BT, pairs)


def measure_budgets(backbone: Backbone, tokens_BT: Tensor, pairs: int) -> None:
    """Prints time and FLOPs of reading over budgets, as shares of all big, and their correlation."""
    layers, width = backbone.config.layers, backbone.config.width
    routers = {big: Random(Spec(layers, width, Budget(big).of(layers))) for big in range(0, layers + 1, 2)}
    works = {str(big): reading(backbone, router, tokens_BT) for big, router in routers.items()}
    seconds, all_big = time_in_turn(works, pairs), str(layers)
    times = [median_ratio(spent, seconds[all_big]) for spent in seconds.values()]
    flops = [pass_cost(backbone.config, work()())[1] for work in works.values()]
    flops = [spent / flops[-1] for spent in flops]
    shown = ", ".join(f"{big}: {one:.2f} ({cost:.2f})" for big, one, cost in zip(routers, times, flops, strict=True))
    print(f"D={width}, time (FLOPs) by big layers: {shown}; r {statistics.correlation(times, flops):.4f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="one pair at the smallest width, to see that it runs")
    options = parser.parse_args()
    keep_freed_memory()
    for chosen in [64] if options.quick else options.widths:
        measure(chosen, options.tokens, 1 if options.quick else options.pairs)
