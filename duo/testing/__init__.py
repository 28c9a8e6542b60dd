"""CHECKS: what every router must do, importable by the tests of any plugin.

    @pytest.mark.parametrize("check", CHECKS)
    def test_my_router(check):
        check(MyRouter)

A check takes what makes the router from a Spec alone (its class), and a Spec: by default 2 big modules of 4 layers,
none skipped; `SKIP_SPEC` is for routers of three modules. It raises AssertionError where a router breaks it.

    checks       what a check is, and its outcome
    decisions    what is decided: one-hot, affordable, from the past alone
    learning     how a router learns, is saved, minds its business
    lab          a small backbone, and routers trained for a moment
    template/    a plugin to begin with
"""

from collections.abc import Iterator

from duo.routing.router import Spec
from duo.testing import decisions, learning
from duo.testing.checks import Check, Outcome, outcomes
from duo.testing.lab import SKIP_SPEC, SPEC, Build, is_bound

CHECKS: tuple[Check, ...] = (
    decisions.a_gate_answers_one_hot_weights,
    decisions.routes_keep_the_budget,
    decisions.routes_repeat,
    decisions.a_gate_that_is_run_again_answers_the_same,
    decisions.a_route_is_independent_of_the_other_sequences,
    decisions.a_route_is_independent_of_the_order_of_the_batch,
    decisions.a_route_is_independent_of_what_was_routed_before,
    decisions.later_tokens_move_no_decision,
    decisions.later_tokens_move_no_prediction,
    decisions.labels_move_no_decision,
    decisions.decoding_token_by_token_gives_the_same_route,
    decisions.left_padding_moves_no_decision,
    learning.the_loss_is_a_finite_number,
    learning.the_loss_reaches_every_parameter,
    learning.every_allowed_module_learns,
    learning.saved_weights_bring_back_the_routes,
    learning.one_token_is_enough,
    learning.it_runs_in_bf16,
    learning.the_backbone_stays_as_it_is,
    learning.the_stream_stays_as_it_is,
    learning.the_global_generator_stays_as_it_is,
)
"""One property of every router each."""


def run_checks(build: Build, spec: Spec = SPEC) -> Iterator[Outcome]:
    """What every check finds, one after the other; raises nothing of the router's."""
    return outcomes(build, spec, CHECKS)


__all__ = ["CHECKS", "SKIP_SPEC", "SPEC", "Build", "Check", "Outcome", "is_bound", "run_checks"]
