"""What a router decides on tokens it is scored on, and what that cost: all that its code takes part in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from msgspec import Struct, structs
from torch import Tensor

from duo.backbone import MODULES, PADDING, Backbone, Run
from duo.data.batch import Batch
from duo.evaluation.score import Cost
from duo.evaluation.size import size_of
from duo.evaluation.timing import Clock, Pace, hidden, pace, speed, timed, unexplained
from duo.evaluation.untouched import Untouched
from duo.routing.meter import Costs, Meter
from duo.routing.registry import blame, describe, hint
from duo.routing.router import Router, route_and_run
from duo.routing.trial import NoLabels, Trial


class Spent(Struct, frozen=True, forbid_unknown_fields=True):
    """What deciding on one batch cost, as its meter and the clock say."""

    router_flops: Cost
    """The router's operators, and the passes it asked for."""
    passes: Cost
    """Extra passes through the backbone, summed over sequences (the last batch may be smaller)."""
    seconds: Cost
    """Wall time of deciding and of the routed pass."""
    router_parameters: int
    """Numbers that the router holds."""
    router_bytes: int
    """The bytes they take."""
    worked: Cost = 0.0
    """Time that deciding worked and its FLOPs cannot explain, as a share of what so many passes, all big, take."""
    waited: Cost = 0.0
    """Time that it waited, of the same kind."""
    hidden: Cost = 0.0
    """Time that threads worked beside the pass, of the same kind; 0 where it was not measured."""
    uncounted_seconds: Cost = 0.0
    """Wall time per token with nothing counted, which slows a cheap router visibly; 0 where it was not measured."""
    time_ratio: Cost = 0.0
    """The same over that of all big (of a router that takes passes, counted); 0 where it was not measured."""
    promised: float | None = None
    """What a search promised for the routes, summed over scored tokens; only who has labels can promise."""


class _Decided(NamedTuple):
    """One batch's pass, what was counted, and how long that took."""

    run: Run
    costs: Costs
    meter: Meter
    clock: Clock


@dataclass(frozen=True)
class _Decider:
    """Who decides, and for whom."""

    backbone: Backbone
    router: Router
    seed: int
    with_labels: bool
    untouched: Untouched

    def trial(self, batch: Batch, meter: Meter) -> Trial:
        """A batch as the router sees it."""
        of = Trial.of if self.with_labels else Trial.without_labels
        return of(batch, self.backbone, seed=self.seed, meter=meter)

    def run(self, batch: Batch) -> _Decided:
        """One pass under the router's route."""
        meter, own_BT, runs = Meter(), batch.tokens_BT.clone(), list[Run]()
        trial = self.trial(batch, meter)
        with blame(self.router, "route"):
            clock = timed(lambda: runs.append(route_and_run(self.backbone, self.router, trial)))
            self.untouched.check()
            _check_left(trial, runs[0].tokens_BT, own_BT)
            costs = meter.costs  # here: where somebody has tampered with them, it is the router
        _check_hard(self.router, runs[0].weight_BTLM, batch.tokens_BT != PADDING)
        return _Decided(runs[0], costs, meter, clock)

    def pace(self, batch: Batch, searches: bool) -> Pace:
        """How long it takes with nothing counted; of one that searches, how long all big takes."""

        def routed() -> Run:
            return route_and_run(self.backbone, self.router, self.trial(batch, Meter(enabled=False)))

        with blame(self.router, "route"):  # a router with a memory may fail the second time alone
            return pace(self.backbone, batch.tokens_BT, None if searches else routed)


@torch.no_grad()
def decide(
    backbone: Backbone, router: Router, batches: Iterable[Batch], seed: int, with_labels: bool = False
) -> Iterator[tuple[Batch, Run, Spent]]:
    """Each batch on the backbone's device, its one pass under the router's route, and what deciding cost.

    Raises:
        ValueError: a backbone that hooks hang on, a gate that is not exactly one-hot, or whatever the router's code
            raises (see `asks_for_labels`).
    """
    backbone.eval(), router.eval()
    decider = _Decider(backbone, router, seed, with_labels, Untouched(backbone))
    here, first = next(backbone.parameters()).device, None
    quickness = speed(here)  # before the router's first call: what torch loads to count is not of its doing
    for batch in batches:
        batch = batch.to(here)
        found, tokens = decider.run(batch), max(int((batch.tokens_BT != PADDING).sum()), 1)
        work, spent = found.costs.work, _spent(router, backbone, batch, found)
        if first is None:
            first = decider.pace(batch, spent.passes > 0)
            all_big, head = first.all_big.wall / tokens, first.head / tokens
            if not spent.passes:  # the first time pays for what is made once
                work = min(work, decider.run(batch).costs.work, key=lambda work: work.processor)
            spent = _timed(spent, first, tokens, hidden(first, work, quickness))
        spent = structs.replace(spent, seconds=spent.seconds + head * tokens)
        passes = all_big * tokens * (1 + found.costs.passes)
        worked, waited = (seconds / passes for seconds in unexplained(work, quickness))
        yield batch, found.run, structs.replace(spent, worked=worked, waited=waited)
    with blame(router, "route"):
        decider.untouched.check_bits()


def _spent(router: Router, backbone: Backbone, batch: Batch, found: _Decided) -> Spent:
    promised_BT, size = found.meter.promised_loss, size_of(router, backbone, found.meter.models)
    return Spent(
        router_flops=found.costs.flops,
        passes=found.costs.passes * len(batch.tokens_BT),
        seconds=found.clock.wall,
        router_parameters=size.numbers,
        router_bytes=size.bytes,
        promised=None if promised_BT is None else float(promised_BT[scored(batch)].double().sum()),
    )


def _timed(spent: Spent, found: Pace, tokens: int, hidden: float) -> Spent:
    """What the first batch's passes tell."""
    return structs.replace(
        spent,
        uncounted_seconds=found.routed.wall / tokens,
        time_ratio=(found.routed.wall or spent.seconds + found.head) / found.all_big.wall,
        hidden=hidden / found.all_big.wall,
    )


def asks_for_labels(error: BaseException | None) -> bool:
    """Whether an error says that a router asked for labels that its trial does not hold."""
    while error is not None and not isinstance(error, NoLabels):
        error = error.__cause__  # `blame` and routers wrap it
    return error is not None


def scored(batch: Batch) -> Tensor:
    """scored_BT: whether there is a label to score, which there is none of behind padding."""
    return (batch.labels_BT != PADDING) & (batch.tokens_BT != PADDING)


def _check_left(trial: Trial, ran_BT: Tensor, own_BT: Tensor) -> None:
    """Raises ValueError where the router has left behind what no score can be made from."""
    # `ran` too: in between the router may have put them back
    if not (torch.equal(ran_BT, own_BT) and torch.equal(trial.tokens_BT, own_BT)):
        raise ValueError("it changed the tokens of its trial: to look at fewer, make a part of it (trial.part)")


def _check_hard(router: Router, weight_BTLM: Tensor, real_BT: Tensor) -> None:
    weight_NLM = weight_BTLM[real_BT]
    # exactly: what is nearly one-hot runs two modules, and costs both
    hard = ((weight_NLM == 0) | (weight_NLM == 1)).all() and (weight_NLM.sum(-1) == 1).all()
    if not hard:
        wrong = weight_NLM[((weight_NLM != 0) & (weight_NLM != 1)).any(-1) | (weight_NLM.sum(-1) != 1)][0]
        raise ValueError(
            f"{describe(type(router))} is not exactly one-hot in eval mode: it weighs {MODULES} with "
            f"{[round(value, 6) for value in wrong.tolist()]}; {hint(router)}"
        )
