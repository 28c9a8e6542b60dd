"""Reading and writing under routes: ratios in one process, alternating, medians of pairs with quartiles.

    OMP_NUM_THREADS=1 python benchmarks/inference.py [--widths 64 512] [--pairs 9] [--only WORK] [--figure PNG]

`prefill` reads 8 sequences, `decode` writes 16 tokens behind each of so many, `evaluation` reads 16 and takes their
loss. `llama` is transformers' Llama of the dimensions that all big has; `pattern` spends 6 of 12 layers big, in the
same layers at every token, `routed` in layers of each token's own. Then measured time against FLOPs over budgets,
without and with skips, as shares of all big.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from pairs import Prepare, backbone_of, llama_of, median_ratio, product_rate, show_ratios, time_in_turn
from torch import Tensor, nn

from duo import Backbone, Budget, Router, Spec, Trial
from duo.backbone import Run
from duo.backbone.flops import pass_cost
from duo.inference.decoder import Decoder
from duo.routing.loss import token_loss
from duo.routing.meter import Meter
from duo.storage.memory import keep_freed_memory
from routers.fixed import Fixed
from routers.random import Random

STEPS = 16  # tokens that are written
SHARES = (0, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1)  # of the layers
Point = tuple[float, float, float]
"""Share of the layers that are skipped; FLOPs and time, as shares of all big's."""
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


def evaluating(backbone: Backbone, router: Router, tokens_BT: Tensor) -> Prepare:
    """Reads whole sequences and takes their losses."""

    @torch.no_grad()
    def work() -> None:
        trial = Trial(backbone, tokens_BT, meter=Meter(enabled=False))
        token_loss(trial.run(router.route(trial)).logits_BTV, tokens_BT)

    return lambda: work


def llama_evaluating(llama: nn.Module, tokens_BT: Tensor) -> Prepare:
    """The same by transformers."""

    @torch.no_grad()
    def work() -> None:
        token_loss(llama(tokens_BT, use_cache=False).logits, tokens_BT)

    return lambda: work


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


def measure(width: int, tokens: int, pairs: int, only: str | None = None) -> list[Point]:
    """Prints the ratios of one width; returns time against FLOPs, unless one work alone is wanted."""
    backbone = backbone_of(width).eval()
    llama, routers = llama_of(backbone.config).eval(), routers_of(backbone)
    tokens_BT = torch.randint(backbone.config.vocabulary, (32, tokens))
    for title, batch, made, ours, theirs in (
        ("prefill", 8, tokens, reading, llama_reading),
        ("decode", 1, STEPS, writing, llama_writing),
        ("decode", 8, STEPS, writing, llama_writing),
        ("decode", 32, STEPS, writing, llama_writing),
        ("evaluation", 16, tokens, evaluating, llama_evaluating),
    ):
        if only not in (None, title):
            continue
        works = {name: ours(backbone, router, tokens_BT[:batch]) for name, router in routers.items()}
        works["llama"] = theirs(llama, tokens_BT[:batch])
        seconds = time_in_turn(works, pairs)
        show_ratios(f"D={width}, T={tokens}, {title}, batch {batch}", seconds, AGAINST)
        rates = ", ".join(f"{name} {batch * made / statistics.median(spent):.4g}" for name, spent in seconds.items())
        print(f"    tokens a second: {rates}", flush=True)
    return [] if only else measure_budgets(backbone, tokens_BT[:8], pairs)


def measure_budgets(backbone: Backbone, tokens_BT: Tensor, pairs: int) -> list[Point]:
    """Prints time and FLOPs of reading over budgets, as shares of all big, and how well the one tells the other."""
    layers, width = backbone.config.layers, backbone.config.width
    budgets = [(big, skip) for skip in (0, 1 / 3) for big in SHARES if big + skip <= 1]
    counts = [(round(big * layers), round(skip * layers)) for big, skip in budgets]
    routers = {count: Random(Spec(layers, width, Budget(*count).of(layers))) for count in counts}
    works = {str(count): reading(backbone, router, tokens_BT) for count, router in routers.items()}
    seconds, all_big = time_in_turn(works, pairs), str((layers, 0))
    times = [median_ratio(spent, seconds[all_big]) for spent in seconds.values()]
    spent = [pass_cost(backbone.config, work()())[1] for work in works.values()]
    flops = [one / spent[counts.index((layers, 0))] for one in spent]
    for skipped in sorted({skip for _, skip in counts}):
        at = [index for index, (_, skip) in enumerate(counts) if skip == skipped]
        shown = ", ".join(f"{counts[index][0]}: {times[index]:.2f} ({flops[index]:.2f})" for index in at)
        print(f"D={width}, {skipped} skipped, time (FLOPs) by big layers: {shown}")
    rate = max(spent) / statistics.median(seconds[all_big])
    print(
        f"    r {statistics.correlation(times, flops):.4f}; all big {rate / 1e9:.1f} GFLOP/s, "
        f"{rate / product_rate():.0%} of the machine's products", flush=True,
    )  # fmt: skip
    return [(skip / layers, cost, one) for (_, skip), cost, one in zip(counts, flops, times, strict=True)]


def draw(found: dict[int, list[Point]], path: Path) -> None:
    """Measured time against FLOPs, a panel for each width, and the diagonal where they agree."""
    figure = Figure(figsize=(4.5 * len(found), 4.2), layout="constrained")
    for axes, (width, points) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="time = FLOPs")
        for skipped in sorted({skip for skip, _, _ in points}):
            own = sorted((cost, one) for skip, cost, one in points if skip == skipped)
            axes.plot(*zip(*own, strict=True), marker="o", label=f"{skipped:.0%} of the layers skipped")
        axes.set(
            title=f"D={width}", xlabel="FLOPs (all big: 1)", ylabel="time (all big: 1)", xlim=(0, None), ylim=(0, None)
        )
        axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--only", choices=("prefill", "decode", "evaluation"), help="this work alone, and no budgets")
    parser.add_argument("--figure", type=Path, help="where time against FLOPs is drawn; by default nowhere")
    parser.add_argument("--quick", action="store_true", help="one pair at the smallest width, to see that it runs")
    options = parser.parse_args()
    keep_freed_memory()
    widths = [64] if options.quick else options.widths
    measured = {
        chosen: measure(chosen, options.tokens, 1 if options.quick else options.pairs, options.only)
        for chosen in widths
    }
    if options.figure:
        draw(measured, options.figure)
