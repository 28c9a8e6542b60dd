"""What routers make a backbone compute, counted on toys of the same depth: no router's name is asked for.

A toy's FLOPs are a sum of evaluations (of attention, small and big FFNs, the head) times what each of them costs. Toys
that differ in one size differ in one cost, which tells how many evaluations there were; those are the real model's too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from duo.backbone import Backbone, BackboneConfig
from duo.backbone.flops import ffn_flops, tree_flops
from duo.recipe import Recipe
from duo.recipe.sections import SeededBackboneConfig
from duo.routing.meter import Meter
from duo.routing.router import Router, learns, route_and_run
from duo.routing.trial import Trial

TOY = {"width": 8, "heads": 2, "key_value_heads": None, "head_dim": None, "big": 8, "small": 4, "vocabulary": 16}
SEQUENCES, TOKENS = 1, 2

Task = Callable[[Backbone, Router], float]
"""FLOPs that a router has a toy spend, in all."""


class Used(NamedTuple):
    """Evaluations that one token takes."""

    attended: float = 0.0
    small: float = 0.0
    big: float = 0.0
    leaves: float = 0.0

    def flops(self, config: BackboneConfig, tokens: int) -> float:
        """What they cost a token of sequences of so many."""
        return tree_flops(config, *self, torch.tensor([(tokens - 1) / 2]))


class Decided(NamedTuple):
    """What a router takes a token, in evaluation."""

    routed: tuple[float, ...]
    """Layers that skip, run small, and run big, in the pass that its route is."""
    deciding: Used
    """What it computes to find the route."""


def count_deciding(recipe: Recipe) -> Decided:
    """What the recipe's router takes to route a token; raises ValueError where it cannot be built or asked."""
    routes = list[tuple[float, ...]]()

    def route(backbone: Backbone, router: Router) -> float:
        meter = Meter()
        with torch.no_grad():
            run = route_and_run(backbone, router.eval(), _trial(backbone, meter, TOKENS))
        routes.append(tuple(run.weight_BTLM.sum(2).mean((0, 1)).tolist()))
        return meter.costs.pass_flops

    used = _count(recipe, route, SEQUENCES * TOKENS)
    # one that learns keeps its budget once it is calibrated, and not before
    skip, small, big = recipe.spec.budget if learns(recipe.new_router()) else routes[0]
    return Decided((skip, small, big + recipe.backbone.layers - recipe.spec.layers), used)


def count_calibrating(recipe: Recipe) -> Used:
    """What calibration computes, by calibration token; routers that use a part of them take less."""

    def calibrate(backbone: Backbone, router: Router) -> float:
        meter = Meter()
        with torch.no_grad(), meter.counting():
            router.eval().calibrate([_trial(backbone, meter, TOKENS)])
        return meter.costs.pass_flops

    return _count(recipe, calibrate, SEQUENCES * TOKENS)


def count_learning(recipe: Recipe) -> Used:
    """What the forward passes of a training step compute, by token of the batch."""

    def learn(backbone: Backbone, router: Router) -> float:
        meter = Meter()
        with meter.counting():
            router.train().loss(_trial(backbone.requires_grad_(False), meter, TOKENS))
        return meter.costs.pass_flops

    return _count(recipe, learn, SEQUENCES * TOKENS)


def _trial(backbone: Backbone, meter: Meter, tokens: int) -> Trial:
    tokens_BT = torch.arange(SEQUENCES * (tokens + 1)).view(SEQUENCES, -1) % backbone.config.vocabulary
    return Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:], progress=0.5, meter=meter)


def _count(recipe: Recipe, task: Task, tokens: int) -> Used:
    """Evaluations a token, from the differences between toys."""
    spent = partial(_spend, recipe, task)
    base = spent(TOY)
    if not base:
        return Used()
    toy = _shape(recipe, TOY)
    one_neuron, one_word = ffn_flops(toy, 1), 2 * toy.width
    small, big, leaves = (
        (spent(TOY | {name: getattr(toy, name) + 1}) - base) / unit / tokens
        for name, unit in (("small", one_neuron), ("big", one_neuron), ("vocabulary", one_word))
    )
    rest = base / tokens - Used(0.0, small, big, leaves).flops(toy, TOKENS)
    return Used(rest / Used(attended=1.0).flops(toy, TOKENS), small, big, leaves)


def _spend(recipe: Recipe, task: Task, shape: dict[str, int | None]) -> float:
    toy = replace(recipe, backbone=_shape(recipe, shape))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Backbone(toy.backbone).pin(toy.budget.pinned).eval()
        return task(backbone, toy.new_router())


def _shape(recipe: Recipe, shape: dict[str, int | None]) -> SeededBackboneConfig:
    return replace(recipe.backbone, pretrained=None, small_from=None, **shape)  # type: ignore[arg-type]
