"""The search against ordinary passes: ratios in one process on the same weights, alternating, medians with quartiles.

    python benchmarks/oracle.py [--widths 64 256] [--pairs 5] [--quick]

`same`: all 4,096 patterns of 12 layers, against one pass per pattern with `F.cross_entropy`, or with our fused loss
(timed on a sample of the patterns; the passes run constant gates without gathering). `committed`: budget 6, against one
cached pass per candidate without shared beginnings. Before them, the memory that 3^9 patterns take.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import torch
import torch.nn.functional as F
from pairs import backbone_of, begin, product_rate, ratio, status, time_in_turn

from duo import Backbone, Budget, Trial, replay
from duo.routing.loss import token_loss
from duo.search import all_patterns, patterns_of
from duo.search.values import label_losses

SAMPLE = 64


def trial_of(backbone: Backbone, tokens: int) -> Trial:
    """Four random sequences."""
    tokens_BT = torch.randint(backbone.config.vocabulary, (4, tokens + 1))
    return Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:])


@torch.no_grad()
def ordinary(backbone: Backbone, trial: Trial, pattern_PL: torch.Tensor, fused: bool) -> torch.Tensor:
    """loss_PBT by one pass per pattern, all tokens through the same modules, nothing gathered."""
    places, losses = backbone.places(trial.tokens_BT, 0, 0), []
    for pattern in pattern_PL.tolist():
        x_BSD = backbone.embed(trial.tokens_BT, places)
        for block, module in zip(backbone.blocks, pattern, strict=True):
            normed = block.attention_norm(x_BSD)
            x_BSD = x_BSD + block.attention.attend(normed, *block.attention.keys_values(normed, places), places)
            x_BSD = x_BSD + (block.ffn.big if module == 2 else block.ffn.small)(block.ffn_norm(x_BSD))
        if fused:
            losses.append(label_losses(backbone, x_BSD[None], trial._labels_BT)[0])
        else:
            logits, labels = backbone.logits(x_BSD).flatten(0, 1), trial._labels_BT.flatten()
            losses.append(F.cross_entropy(logits, labels, reduction="none").view(trial.tokens_BT.shape))
    return torch.stack(losses)


def measure_same(width: int, pairs: int, patterns: int) -> float:
    """Prints the ratios of `same`; returns patterns x tokens a second."""
    backbone = backbone_of(width).eval()
    trial, pattern_PL = trial_of(backbone, 128), all_patterns(12)
    sample_P = torch.randperm(len(pattern_PL))[:SAMPLE]
    pattern_PL = pattern_PL[:patterns]  # the last layers of all, where not every pattern is wanted
    works = {"search": partial(trial.search, pattern_PL, (), "same")}
    for name, fused in (("cross-entropy", False), ("fused loss", True)):
        works[name] = partial(ordinary, backbone, trial, all_patterns(12)[sample_P], fused)
    seconds = time_in_turn({name: lambda work=work: work for name, work in works.items()}, pairs)
    per_pattern = {name: [one / SAMPLE for one in spent] for name, spent in seconds.items()}
    per_pattern["search"] = [one / len(pattern_PL) for one in seconds["search"]]
    middle = statistics.median(seconds["search"])
    table_BTP = trial.search(pattern_PL[:256], (), "same", table=True).table_BTP
    apart = (table_BTP.permute(2, 0, 1) - ordinary(backbone, trial, pattern_PL[:256], False)).abs().max()
    before = trial.meter.flops
    trial.search(pattern_PL, (), "same")
    rate = (trial.meter.flops - before) / middle
    print(
        f"same, D={width}: {len(pattern_PL)} patterns in {middle:.1f} s; a pass per pattern takes "
        f"{ratio(per_pattern['cross-entropy'], per_pattern['search'])} times as long with cross-entropy, "
        f"{ratio(per_pattern['fused loss'], per_pattern['search'])} with the fused loss; equal to {apart:.1e}; "
        f"{rate / 1e9:.0f} GFLOP/s, {rate / product_rate():.0%} of the machine's products",
        flush=True,
    )
    return len(pattern_PL) * trial.tokens_BT.numel() / middle


@torch.no_grad()
def measure_committed(width: int, pairs: int, tokens: int, same_rate: float) -> None:
    """Prints the ratios of `committed` at budget 6 of 12."""
    backbone = backbone_of(width).eval()
    trial, pattern_PL = trial_of(backbone, tokens), patterns_of(12, Budget(6))
    found = trial.search(pattern_PL, [Budget(6)])
    route_BTL = found.route_BTGL[:, :, 0]
    half = tokens // 2
    context = backbone(trial.tokens_BT[:, :half], replay(route_BTL[:, :half]))
    last_B1, labels_N = trial.tokens_BT[:, half : half + 1], trial._labels_BT[:, half].repeat_interleave(SAMPLE)
    rows = [part.repeat_interleave(SAMPLE, 0) for part in (context.tokens_BT, last_B1)]
    many = context._replace(
        tokens_BT=rows[0],
        weight_BTLM=context.weight_BTLM.repeat_interleave(SAMPLE, 0),
        keys_values=[tuple(part.repeat_interleave(SAMPLE, 0) for part in pair) for pair in context.keys_values],
    )

    def per_candidate() -> None:  # 64 candidates at once in the middle of the sequence, scaled to all
        logits_NV = backbone(rows[1], replay(pattern_PL[:SAMPLE].repeat(4, 1)[:, None]), many, half).logits_BTV
        F.cross_entropy(logits_NV[:, 0], labels_N, reduction="none")

    works = {"search": partial(trial.search, pattern_PL, [Budget(6)]), "passes": per_candidate}
    seconds = time_in_turn({name: lambda work=work: work for name, work in works.items()}, pairs)
    passes = [one / SAMPLE * len(pattern_PL) * tokens for one in seconds["passes"]]
    middle = statistics.median(seconds["search"])
    replayed = token_loss(backbone(trial.tokens_BT, replay(route_BTL)).logits_BTV, trial._labels_BT)
    rate = len(pattern_PL) * trial.tokens_BT.numel() / middle
    print(
        f"committed, D={width}, budget 6, T={tokens}: {middle:.1f} s; a cached pass per candidate takes "
        f"{ratio(passes, seconds['search'])} times as long; {rate / same_rate:.2f} of the rate of `same`; "
        f"replay equals promise to {(replayed - found.loss_BTG[..., 0]).abs().max():.1e}",
        flush=True,
    )


def measure_memory() -> None:
    """Prints how much the process grows at its peak while 3^9 patterns are searched."""
    backbone = backbone_of(64, layers=9).eval()
    trial = trial_of(backbone, 128)
    trial.search(all_patterns(9)[:8], (), "same")
    before = begin()
    trial.search(all_patterns(9, (0, 1, 2)), [Budget(3), Budget(3, 3)], "same")
    grown = status("VmHWM") - before
    print(f"memory: 3^9 patterns on 4 x 128 tokens at D=64, {grown / 2**30:.2f} GB more", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--quick", action="store_true", help="a few patterns at the smallest width, to see that it runs"
    )
    options = parser.parse_args()
    measure_memory()
    for width in [64] if options.quick else options.widths:
        rate = measure_same(width, 1 if options.quick else options.pairs, 256 if options.quick else 4096)
        measure_committed(width, 1 if options.quick else options.pairs, 4 if options.quick else 32, rate)
