"""Training steps under routes: ratios in one process, alternating, medians of pairs with quartiles.

    OMP_NUM_THREADS=1 python benchmarks/training.py [--widths 64 256 512] [--pairs 7] [--quick]

`routed` trains a backbone under random routes (stage 1), `all big` the same backbone through its big FFNs alone,
`llama` transformers' Llama of these dimensions, and `router` a router on the frozen backbone (stage 3).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from pairs import Prepare, backbone_of, llama_of, show_ratios, time_in_turn
from torch import Tensor, nn
from torch.nn import functional as F

from duo import Backbone, Budget, Router, Spec, Trial
from duo.routing.meter import Meter
from duo.storage.memory import keep_freed_memory
from routers.fixed import Fixed
from routers.random import Random
from routers.softmax_budget import SoftmaxBudget

AGAINST = [("all big", "llama"), ("routed", "all big"), ("routed", "llama"), ("router", "all big")]


def stepping(model: nn.Module, loss: Callable[[], Tensor]) -> Prepare:
    """One step of a model: forward, backward, clipping, optimizer."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def step() -> None:
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return lambda: step


def loss_of(backbone: Backbone, router: Router, tokens_BT: Tensor, frozen: bool = False) -> Callable[[], Tensor]:
    """The router's loss."""

    def loss() -> Tensor:
        backbone.requires_grad_(not frozen)
        trial = Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:], meter=Meter(enabled=False), progress=0.5)
        return router.loss(trial)

    return loss


def llama_loss(llama: nn.Module, tokens_BT: Tensor) -> Tensor:
    """Cross-entropy of the same tokens."""
    logits_BTV = llama(tokens_BT[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten())


def measure(width: int, pairs: int) -> None:
    """Prints the ratios of one width."""
    backbone = backbone_of(width)
    llama, config = llama_of(backbone.config), backbone.config
    tokens_BT = torch.randint(config.vocabulary, (16, 129))
    spec = Spec(config.layers, width, Budget(0.5))
    router = SoftmaxBudget(spec)
    routes = {"routed": Random(spec, p_big=0.5), "all big": Fixed(spec, pattern=[2] * config.layers)}
    works = {name: stepping(backbone, loss_of(backbone, route, tokens_BT)) for name, route in routes.items()}
    works["llama"] = stepping(llama, lambda: llama_loss(llama, tokens_BT))
    works["router"] = stepping(router, loss_of(backbone, router, tokens_BT, frozen=True))
    show_ratios(f"D={width}, step of 16 x 128", time_in_turn(works, pairs), AGAINST)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256, 512])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one pair at the smallest width, to see that it runs")
    options = parser.parse_args()
    keep_freed_memory()
    for chosen in [64] if options.quick else options.widths:
        measure(chosen, 1 if options.quick else options.pairs)
