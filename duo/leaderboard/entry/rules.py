"""What a row must do to stand on the leaderboard; each raises ValueError with the reason where it does not."""

from __future__ import annotations

import functools

from duo.evaluation.evaluate import OVERSPEND
from duo.evaluation.row import Row
from duo.progress import track
from duo.recipe import Recipe
from duo.routing import registry
from duo.routing.router import Spec
from duo.stages.score import reference_routers
from duo.testing import CHECKS, SKIP_SPEC, SPEC, run_checks


def is_reference(row: Row) -> bool:
    """Whether a row is all small or all big: a line beside the others, outside the budget rule."""
    layers = next(iter(row.subset.values())).sequences.used_TLM.shape[1]
    return {"name": row.router, **row.options} in reference_routers(layers).values()


def check_budget(row: Row) -> None:
    """Every hold-out costs at most 1 % more than the budget, with no module whose budget is 0; references are free.

    What neither reads labels nor takes passes to decide is scored on full hold-outs, for it is ranked by them.
    """
    for holdout, score in () if is_reference(row) else row.shown.items():
        # its FLOPs and what it says of itself: either may be made up
        inside = score.flops_per_token <= OVERSPEND * score.budget_flops_per_token and score.within_budget
        if not inside:
            over = score.flops_per_token / score.budget_flops_per_token - 1
            raise ValueError(f"on {holdout} it is not within the budget: FLOPs {over:+.1%}, shares {score.share}")
    expensive = all(score.passes >= 1 for score in row.subset.values())
    if not (row.scores or row.bound or expensive):
        raise ValueError("it is scored on the subset of searches alone: give full_holdout=true")


def check_conformance(recipe: Recipe, row: Row) -> None:
    """The conformance suite passes, on its own small Spec, or on one of the recipe's layers where options need that."""
    if is_reference(row):
        return
    build = functools.partial(registry.load(row.router), **row.options)
    for outcome in track(run_checks(build, _spec(recipe)), "check", len(CHECKS)):
        if outcome.error is not None:
            raise ValueError(f"a check failed, {outcome.check}: {outcome.error}")


def _spec(recipe: Recipe) -> Spec:
    spec = SKIP_SPEC if recipe.budget.skip else SPEC
    try:
        registry.build(recipe.router["name"], spec, recipe.router_options)
    except ValueError:
        return Spec(recipe.spec.layers, SPEC.width, recipe.spec.budget)
    return spec
