"""Every check fails on a router built to break it, and the routers that ship pass them all."""

import breakers as b
import breakers_of_learning as bl
import pytest
import torch

from duo.evaluation.evaluate import evaluate
from duo.routing import registry
from duo.testing import CHECKS, SKIP_SPEC, SPEC, decisions, is_bound, learning, run_checks
from duo.testing.lab import Lab

SHIPPED = [name for name, points in registry.available().items() if points[0].module.startswith("routers.")]

BROKEN = {
    decisions.a_gate_answers_one_hot_weights: {
        b.WrongShape: r"a tensor \(15, 3\), where a tensor \(3, 5, 3\) is expected",
        b.NoTensor: "the gate answers a list",
        b.Soft: r"\[0.0, 0.1, 0.9\], which is not exactly one-hot",
        b.NotANumber: r"\[nan, nan, nan\], which is not exactly one-hot",
    },
    decisions.routes_keep_the_budget: {
        b.Overspends: r"its routes cost 1.\d+ times the budget's FLOPs",
        b.Skips: "it uses skip, whose budget is 0",
    },
    decisions.routes_repeat: {
        b.Unseeded: "the same call twice gives two routes: draw from trial.uniform alone",
        b.Remembers: "the same call twice gives two routes: keep no state between calls",
        bl.UnseededLearning: "two routers of one seed give two routes",
    },
    decisions.a_gate_that_is_run_again_answers_the_same: {
        b.SpendsOnce: "the same gate weighs 8 sequences differently when it is run again: begin anew at layer 0",
        b.DrawsAnew: "sequences differently when it is run again: .* draw from trial.uniform alone",
        b.DrawsInTraining: "in training the same gate weighs 8 sequences differently",
    },
    decisions.a_route_is_independent_of_the_other_sequences: {
        b.BatchMean: "routed differently when they are alone",
        b.RowOrder: "routed differently when they are alone",
    },
    decisions.a_route_is_independent_of_the_order_of_the_batch: {b.RowOrder: "when the batch is turned upside down"},
    decisions.a_route_is_independent_of_what_was_routed_before: {
        b.Remembers: "keep no state between calls",
        b.Caches: "keep no state between calls",
    },
    decisions.later_tokens_move_no_decision: {
        b.LooksAhead: "a change of later tokens moved a decision",
        b.SequenceMean: "a change of later tokens moved a decision",
        b.Peeks: "a change of later tokens moved a decision",
    },
    decisions.later_tokens_move_no_prediction: {
        b.ForeseesTokens: "a change of the tokens after the first 1 moved what is predicted by 1",
        b.PredictsLogits: "its probabilities sum to 64.0",
    },
    decisions.labels_move_no_decision: {b.Peeks: "other labels moved decisions in 8 sequences"},
    decisions.decoding_token_by_token_gives_the_same_route: {
        b.WholePassesOnly: r"the gate answered shape \(8, 7, 3\)",
        b.CountsFromTheStep: "routed differently token by token",
        b.SlipsInOneSequence: "1 of 8 sequences are routed differently token by token",
        b.LooksAhead: "routed differently token by token",
    },
    decisions.left_padding_moves_no_decision: {b.CountsPadding: "routed differently behind padding"},
    learning.the_loss_is_a_finite_number: {
        bl.LossIsNotANumber: "the loss is nan when 0% of the steps are done",
        bl.LossPerToken: r"the loss has shape \(8, 12\)",
    },
    learning.the_loss_reaches_every_parameter: {
        bl.LossIsDetached: "the loss depends on none of the parameters",
        bl.LossIsFlat: "the gradient of every parameter is 0",
        bl.ForgetsAHead: "the loss does not depend on spare.weight, spare.bias",
    },
    learning.every_allowed_module_learns: {
        bl.LearnsTheBudgetAlone: "where another module is chosen, the weight of small gets no gradient from the loss",
        bl.DetachesSmall: "the weight of small moves with no parameter",
    },
    learning.saved_weights_bring_back_the_routes: {bl.Unsaved: "keep what was found in buffers"},
    learning.one_token_is_enough: {b.NeedsTwoTokens: "must match the existing size"},
    learning.it_runs_in_bf16: {bl.Float32Only: "same dtype"},
    learning.the_backbone_stays_as_it_is: {
        bl.TrainsTheBackbone: r"loss changes the backbone's weights \(norm.weight\)",
        bl.PrunesTheBackbone: "calibrate changes the backbone's weights",
    },
    learning.the_stream_stays_as_it_is: {
        bl.TunesTheStream: "the gate changed its input at layer 0: .* write into a copy",
        bl.TunesInSecret: "the gate writes into the stream at layer 0 in training",
    },
    learning.the_global_generator_stays_as_it_is: {
        bl.Seeds: "loss seeds torch's global generator",
        b.Unseeded: "loss seeds torch's global generator or draws",
        b.DrawsInItsGate: "route, or its gate, seeds torch's global generator or draws",
        bl.DrawsInCalibration: "calibrate seeds torch's global generator or draws",
        b.SeedsNumpy: "loss seeds numpy's global generator or draws",
    },
}


@pytest.mark.parametrize(
    ("check", "breaker", "words"),
    [(check, breaker, words) for check, breakers in BROKEN.items() for breaker, words in breakers.items()],
)
def test_a_check_fails_on_what_breaks_it_and_says_why(check, breaker, words):
    with pytest.raises((AssertionError, RuntimeError, ValueError), match=words):
        check(breaker)


def test_every_check_has_a_router_that_breaks_it():
    assert tuple(BROKEN) == CHECKS


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_router_passes_every_check(name):
    assert [outcome for outcome in run_checks(registry.load(name)) if outcome.error] == []


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["oracle", "random", "softmax_budget", "surrogate"]
)  # others may refuse a budget of three modules
def test_a_router_of_three_modules_passes_every_check_in_both_skip_scopes(name):
    assert [outcome for outcome in run_checks(registry.load(name), SKIP_SPEC) if outcome.error] == []


@pytest.mark.parametrize(("breaker", "skips"), [(b.Soft, True), (b.Skips, False)])
def test_the_checks_hold_with_skips_too(breaker, skips):
    outcomes = {outcome.check: outcome.error for outcome in run_checks(breaker, SKIP_SPEC)}
    assert (outcomes["a gate answers one hot weights"] is None) is not skips
    if not skips:
        assert outcomes["routes keep the budget"] is None  # skipping all is cheap, and allowed here


def test_outcomes_say_in_plain_words_what_was_wrong_and_where():
    outcomes = {outcome.check: outcome for outcome in run_checks(b.NeedsTwoTokens)}
    assert list(outcomes) == [check.__name__.replace("_", " ") for check in CHECKS]
    one = outcomes["one token is enough"]
    assert one.error.startswith("it raised RuntimeError: ")
    assert "breakers.py, line" in one.error
    assert one.proves.startswith("One sequence of one token")
    soft = next(run_checks(b.Soft)).error
    assert soft.startswith("at layer 0 it weighs ('skip', 'small', 'big') with [0.0, ")


def test_a_router_that_changes_torchs_settings_fails_a_check_and_says_which():
    try:
        with pytest.raises(AssertionError, match="loss: it changed torch's default dtype, which all models .* share"):
            learning.the_backbone_stays_as_it_is(b.SetsTheDefaultType)
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_is_no_router_is_told():
    assert next(run_checks(lambda spec: torch.nn.Linear(1, 1))).error == "what was built is Linear, not a duo.Router"


def test_what_a_gate_asks_of_its_trial_while_it_runs_is_metered():
    assert is_bound(b.SearchesInItsGate)
    lab = Lab(b.SearchesInItsGate)
    score = evaluate(lab.backbone, lab.built(), [lab.batch()])
    assert score.labels_consulted
    assert score.passes == 2
    assert score.router_flops_per_token > score.flops_per_token


def test_reading_labels_by_stealth_makes_no_bound():
    assert not is_bound(b.Peeks)  # so the checks that spare bounds do not spare it


def test_checks_leave_the_global_generator_as_they_found_it():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(run_checks(registry.load("random")))
    assert torch.equal(before, torch.get_rng_state())
    assert SPEC.budget.skip == 0
    assert 1 <= SPEC.budget.big < SPEC.layers
    assert isinstance(SPEC.budget.big, int)
