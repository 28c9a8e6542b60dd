"""What makes each part of each claim false: near its bound, on one side or the other, and nothing else of the claim."""

from typing import NamedTuple

import numpy as np
from toy_papers import EXITS, LAYERS, MIXTURES, OPT, PLANTED, SHARES

HALF = LAYERS // 2


class Plant(NamedTuple):
    """A change of a world, and what it makes false."""

    claim: str
    part: int
    change: object
    about: dict = {}
    """Of the world."""

    @property
    def name(self):
        return f"{self.claim} {self.part}"


def losing(name, *budgets, loss):
    """A row loses so much at these budgets, and as always at others."""
    return lambda world: world.losses.update({name: lambda big: loss if big in budgets else PLANTED[name](big)})


def put(name, **values):
    """Values of a dictionary of the world."""
    return lambda world: getattr(world, name).update(values)


def be(**values):
    """Attributes of the world."""
    return lambda world: vars(world).update(values)


def shifting(name, big, more):
    """What the best of some candidates loses more."""
    return lambda world: getattr(world, name).update({big: more})


def sloping(more):
    """What the best candidate loses more with every big layer."""
    return be(best_loss={big: more * (big - HALF) for big in range(LAYERS + 1)})


def late(who, **by):
    return lambda world: world.late[who].update(by)


def early(who, **by):
    return lambda world: world.early[who].update(by)


def skipping(*shares):
    """The oracle's skips, in layers that take turns; its sequences are more alike than elsewhere."""
    return lambda world: (put("skipped", oracle=np.array([*shares] * HALF))(world), be(stubborn=0.1)(world))


UNORDERED = np.array([0.7, 0.5, 0.3, 0.1, 0.0, 0.0, 1.0, 1.0, 0.8, 0.6, 0.3, 0.1])
ROUTER = [
    plant
    for number, budget in enumerate(SHARES)
    for plant in (
        Plant("router_late_early", 2 * number, late("router", **{budget: -0.3})),
        *[Plant("router_late_early", 2 * number + 1, early("router", **{budget: -0.05}))] * (budget != "many"),
        Plant("little_agreement", number, be(copies={budget})),
    )
]
ROUTER += [
    Plant("router_later_than_oracle", 0, late("oracle", half=1.6)),
    Plant("router_later_than_oracle", 1, late("oracle", many=1.6)),
    *(Plant("router_small_at_end", number, early("mixtures", **{name: -0.05})) for number, name in enumerate(MIXTURES)),
]
BELOW = [
    Plant(f"oracle_below_{title}", number, losing(name, big, loss=4.1))
    for title, name in (("fixed", "fixed_best"), ("router", "softmax_budget"))
    for number, big in enumerate((2, 4, 6, 8, 10))
]
CANDIDATES = [
    Plant(claim, big - 1, shifting(kind, at, more))
    for big in range(1, HALF)
    for claim, kind, at in (("fewer_routes", "few_loss", big), ("mirrored_budgets", "best_loss", LAYERS - big))
    for more in ((2.0, -0.25) if kind == "few_loss" and big == 1 else (0.35, -0.35))
]
MIXED = [name for name, kind in OPT.items() if kind == "big"]
SKIPPING = [name for name, kind in OPT.items() if kind == "skips"]
APPENDIX = [
    plant
    for claim, names, sign in (("opt_late_early", MIXED, 1), ("opt_skips_late", SKIPPING, -1))
    for number, name in enumerate(names)
    for plant in (
        Plant(claim, 2 * number, late("opt", **{name: -0.3})),
        Plant(claim, 2 * number + 1, early("opt", **{name: -0.05 * sign})),
    )
]
PLANTS = [
    Plant("oracle_below_random", 0, losing("best_of_random", HALF, loss=4.15)),
    Plant("oracle_below_random", 1, losing("random", HALF, loss=4.45)),
    Plant("router_near_fixed", 0, losing("best_of_random", HALF, loss=5.1)),
    Plant("router_near_fixed", 1, losing("fixed_best", HALF, loss=5.1)),
    Plant("interior_minimum", 0, losing("committed", 0, loss=4.15)),
    Plant("interior_minimum", 1, losing("committed", LAYERS, loss=4.15)),
    Plant("lowest_at_half", 0, losing("committed", HALF - 1, loss=4.15)),
    Plant("lowest_at_half", 1, losing("committed", HALF + 1, loss=4.15)),
    *BELOW,
    Plant("one_big_beats_all", 0, losing("committed", 1, loss=4.65)),
    Plant("more_big_helps", 0, losing("fixed_best", 8, 10, loss=4.8)),
    Plant("more_big_helps", 1, losing("softmax_budget", 8, 10, loss=4.8)),
    Plant("number_of_routes", 0, be(best_loss=dict.fromkeys((0, LAYERS), -0.5))),
    Plant("number_of_routes", 1, sloping(0.048)),
    Plant("number_of_routes", 1, sloping(-0.028)),
    *CANDIDATES,
    Plant("constant_budget", 0, put("schedules", falling=4.15)),
    Plant("constant_budget", 1, put("schedules", rising=4.15)),
    Plant("near_dense", 0, put("dense", duo_100=4.68)),
    Plant("near_dense", 0, put("dense", duo_100=4.38)),
    Plant("near_dense", 1, put("dense", duo_0=4.7)),
    Plant("dense_better", 0, put("dense", dense_big=4.57)),
    Plant("dense_better", 1, put("dense", dense_equal_flops=4.62)),
    Plant("dense_better", 2, put("dense", dense_small=4.92)),
    Plant("joint_beats_freezing", 0, put("dense", big_first_50=4.55)),
    Plant("promises", 0, shifting("best_loss", HALF, 0.2)),
    Plant("promises", 1, put("promised", committed=4.195)),
    Plant("promises", 1, put("promised", committed=4.205)),
    Plant("late_at_few", 0, late("oracle", few=-0.3, half=-1.0)),
    Plant("late_at_few", 1, late("oracle", few=0.5, half=1.0)),
    Plant("even_at_half", 0, late("oracle", half=0.4)),
    Plant("even_at_half", 0, late("oracle", half=-0.4)),
    Plant("early_at_many", 0, late("oracle", many=0.3, half=1.0)),
    Plant("early_at_many", 1, late("oracle", many=-0.5, half=-1.0)),
    Plant("skips_by_layer", 0, skipping(0.42, 0.1)),
    Plant("skips_by_layer", 1, skipping(0.9, 0.62)),
    Plant("skips_by_layer", 2, put("skipped", oracle=np.linspace(0.05, 0.95, LAYERS))),
    Plant("skips_by_layer", 2, put("skipped", oracle=np.linspace(0.95, 0.05, LAYERS))),
    Plant("skips_persist", 0, be(loyal=-1)),
    Plant("router_exits_early", 0, put("skipped", router=UNORDERED)),
    Plant("router_exits_early", 1, put("skipped", router=0.5 + 0.15 * (EXITS - 0.5))),
    *ROUTER,
    *APPENDIX,
    Plant("hard_without_potential", 0, be(hopeless=0.0), {"documents": 1000}),
    Plant("loss_says_little", 0, be(guided=1.0)),
    Plant("gain_on_few", 0, be(peak=0.0)),
    Plant("line_starts", 0, be(line_loss=-1.5)),
    Plant("line_starts", 1, be(line_gain=1.2)),
    Plant("time", 0, be(time=lambda flops: 0.6 + 0.6 * flops)),
    Plant("time", 1, be(time=lambda flops: 0.9 - 0.3 * flops)),
    Plant("ladder", 0, put("ladder", softmax_budget=4.3)),
    Plant("ladder", 1, put("ladder", ngram_budget=4.3)),
]
"""Every part of every claim has at least one; a part with two bounds has one beyond each."""
