"""Checks of what a router decides: that it is a decision, affordable, repeatable, and made from what may be known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from duo.backbone import MODULES, PADDING
from duo.data.batch import Batch
from duo.evaluation.evaluate import OVERSPEND, evaluate
from duo.evaluation.knowable import Predictor, check_distribution
from duo.inference.agreement import MARGIN, compare_with_whole_pass
from duo.routing.router import Router
from duo.routing.trial import Trial
from duo.testing.checks import check
from duo.testing.lab import VOCABULARY, Lab, assert_hard, count_moved, rows

PREDICTED = 1e-3  # nats by which rounding may move a prediction
TIES = 1  # sequences that may be routed differently where sums run in another order: nearly equal choices may swap


@check
def a_gate_answers_one_hot_weights(lab: Lab) -> None:
    """In eval mode the gate answers, at every layer, a tensor (sequences, tokens, 3) that is exactly one-hot."""
    trial, router = Trial.of(lab.batch(3, 5), lab.backbone), lab.router()
    with torch.no_grad():
        gate = router.route(trial)

    def watched(x_BSD: Tensor, layer: int) -> Tensor:
        weight = gate(x_BSD, layer)
        said = f"a tensor {tuple(weight.shape)}" if isinstance(weight, Tensor) else f"a {type(weight).__name__}"
        wanted = f"a tensor {(*x_BSD.shape[:2], len(MODULES))}"
        assert said == wanted, f"at layer {layer} the gate answers {said}, where {wanted} is expected"
        assert_hard(weight, f"at layer {layer}")
        return weight

    with torch.no_grad():
        trial.run(watched)


@check
def routes_keep_the_budget(lab: Lab) -> None:
    """Calibration tokens cost at most 1 % more FLOPs than the budget, and use no module whose budget is 0."""
    router, counts = lab.router(), lab.spec.budget
    for batch in lab.calibration:
        score = evaluate(lab.backbone, router, [batch])
        unbudgeted = [name for name, count in zip(MODULES, counts, strict=True) if score.share[name] and not count]
        assert not unbudgeted, f"it uses {' and '.join(unbudgeted)}, whose budget is 0"
        spent = score.flops_per_token / score.budget_flops_per_token
        assert score.within_budget, (
            f"on {batch.domain} its routes cost {spent:.3f} times the budget's FLOPs, more than {OVERSPEND}: "
            "calibrate it (see duo.calibrated)"
        )


@check
def routes_repeat(lab: Lab) -> None:
    """The same tokens get the same route again, also from another router of the same seed."""
    router, batch = lab.router(), lab.batch()
    route_BTL = lab.route(router, batch)
    again_BTL = lab.route(router, batch)
    # no ties here: the sums run in the same order
    assert not count_moved(route_BTL, again_BTL), (
        f"the same call twice gives two routes: {_advise_of_two_calls(lab, router, batch)}"
    )
    assert not count_moved(route_BTL, lab.route(lab.router(), batch)), (
        "two routers of one seed give two routes: draw from trial.uniform alone"
    )


def _advise_of_two_calls(lab: Lab, router: Router, batch: Batch) -> str:
    """Why they differ: what else is drawn is drawn alike behind the same seeds, what is kept stays different."""
    route_BTLs = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            torch.manual_seed(0)
            route_BTLs.append(lab.route(router, batch))
    if count_moved(*route_BTLs):
        return "keep no state between calls: what a gate remembers is made anew by route, or begins anew at layer 0"
    return "draw from trial.uniform alone"


@check
def a_gate_that_is_run_again_answers_the_same(lab: Lab) -> None:
    """The same gate, run twice in one trial, gives the same weights, in training too."""
    router, batch = lab.router(), lab.batch()
    for training in (False, True) if any(part.requires_grad for part in router.parameters()) else (False,):
        trial, when = Trial.of(batch, lab.backbone), "in training " if training else ""
        with torch.no_grad():
            gate = router.train(training).route(trial)
            changed = count_moved(*(trial.run(gate).weight_BTLM for _ in range(2)))
        assert not changed, (
            f"{when}the same gate weighs {changed} sequences differently when it is run again: begin anew at layer 0, "
            "and draw from trial.uniform alone"
        )


@check
def a_route_is_independent_of_the_other_sequences(lab: Lab) -> None:
    """A sequence gets the same route alone as among others."""
    router, batch = lab.router(), lab.batch()
    alone_BTL = torch.cat([lab.route(router, rows(batch, torch.tensor([row]))) for row in range(len(batch.tokens_BT))])
    changed = count_moved(lab.route(router, batch), alone_BTL)
    assert changed <= TIES, (
        f"{changed} of {len(alone_BTL)} sequences are routed differently when they are alone: decide by the sequence "
        "itself, and draw from trial.uniform alone"
    )


@check
def a_route_is_independent_of_the_order_of_the_batch(lab: Lab) -> None:
    """A sequence gets the same route wherever it stands in the batch."""
    router, batch = lab.router(), lab.batch()
    backwards_B = torch.arange(len(batch.tokens_BT)).flip(0)
    changed = count_moved(lab.route(router, batch), lab.route(router, rows(batch, backwards_B))[backwards_B])
    assert changed <= TIES, (
        f"{changed} sequences are routed differently when the batch is turned upside down: decide by the sequence "
        "itself, and draw from trial.uniform alone"
    )


@check
def a_route_is_independent_of_what_was_routed_before(lab: Lab) -> None:
    """A router that has routed other tokens gives the same route as one that has not."""
    batch, used = lab.batch(), lab.router()
    lab.route(used, lab.batch(seed=3))
    changed = count_moved(lab.route(lab.router(), batch), lab.route(used, batch))
    assert not changed, f"{changed} sequences are routed differently after others were: keep no state between calls"


@check
def later_tokens_move_no_decision(lab: Lab) -> None:
    """What follows a token moves none of its decisions (but of routers that the meter has seen consult labels)."""
    router, batch = lab.router(), lab.batch()
    if lab.consults_labels(router, batch):
        return
    route_BTL, other_BT, tokens = lab.route(router, batch), _other(batch.tokens_BT), batch.tokens_BT.shape[1]
    changed = 0
    for seen in range(1, tokens):
        later_BT = torch.cat((batch.tokens_BT[:, :seen], other_BT[:, seen:]), dim=1)
        labels_BT = torch.cat((later_BT[:, 1:], other_BT[:, :1]), dim=1)
        route = lab.route(router, batch._replace(tokens_BT=later_BT, labels_BT=labels_BT))
        changed += count_moved(route_BTL[:, :seen], route[:, :seen])
    assert changed <= TIES, (
        f"{changed} of {len(route_BTL) * (tokens - 1)} times a change of later tokens moved a decision"
    )


@check
def later_tokens_move_no_prediction(lab: Lab) -> None:
    """What a router says that it knows (`predict`) is a distribution, and what follows a token moves none of it."""
    router, batch = lab.router(), lab.batch()
    if not isinstance(router, Predictor):
        return
    tokens, other_BT = batch.tokens_BT.shape[1], _other(batch.tokens_BT)
    known_BTV = _predict(lab, router, batch)
    try:
        check_distribution(known_BTV.flatten(0, 1))
    except ValueError as error:
        raise AssertionError(str(error)) from error
    for seen in range(1, tokens):
        later = batch._replace(tokens_BT=torch.cat((batch.tokens_BT[:, :seen], other_BT[:, seen:]), dim=1))
        off_BSV = _predict(lab, router, later)[:, :seen] - known_BTV[:, :seen]
        moved = float(off_BSV.nan_to_num().abs().max())  # what is ruled out both times differs by no number
        assert moved <= PREDICTED, (
            f"a change of the tokens after the first {seen} moved what is predicted by {moved:.2g}"
        )


@torch.no_grad()
def _predict(lab: Lab, router: Router, batch: Batch) -> Tensor:
    assert isinstance(router, Predictor)
    return router.predict(Trial.without_labels(batch, lab.backbone))


@check
def labels_move_no_decision(lab: Lab) -> None:
    """Other labels move no decision (but of routers that the meter has seen consult them)."""
    router, batch = lab.router(), lab.batch()
    if lab.consults_labels(router, batch):
        return
    relabelled = batch._replace(labels_BT=_other(batch.labels_BT))
    changed = count_moved(lab.route(router, batch), lab.route(router, relabelled))
    assert not changed, (
        f"other labels moved decisions in {changed} sequences: read them with trial.loss alone, where the meter sees it"
    )


@check
def decoding_token_by_token_gives_the_same_route(lab: Lab) -> None:
    """Asked about a prompt, then about one token at a time, with cached keys and values, it decides alike."""
    router, batch = lab.router(), lab.batch()
    if lab.consults_labels(router, batch):
        return
    sequences, tokens = batch.tokens_BT.shape
    padded_BT = _pad(batch.tokens_BT, [row % 4 for row in range(sequences)])  # as prompts of unequal length are
    found = compare_with_whole_pass(lab.backbone, router, padded_BT, tokens // 2, batch.sequence_B)
    # no ties are spared here: margins are measured
    changed, decisions = int(found.broken_BTL.flatten(1).any(1).sum()), int(found.broken_BTL.sum())
    assert not changed, (
        f"{changed} of {sequences} sequences are routed differently token by token, in {decisions} decisions that are "
        "no near ties: decide by the tokens up to the one that is asked about, and by its own state: those of earlier "
        "tokens are not shown again"
    )
    assert found.logits <= MARGIN, f"on the same routes logits differ by {found.logits:.1e} of the largest"


@check
def left_padding_moves_no_decision(lab: Lab) -> None:
    """A sequence gets the same route behind padding (tokens of -1) as without it."""
    router, batch = lab.router(), lab.batch()
    pads = [row % 4 for row in range(len(batch.tokens_BT))]
    padded = batch._replace(tokens_BT=_pad(batch.tokens_BT, pads), labels_BT=_pad(batch.labels_BT, pads))
    padded_BTL, changed = lab.route(router, padded), 0
    for row, pad in enumerate(pads):
        one = rows(padded, torch.tensor([row]))
        one = one._replace(tokens_BT=one.tokens_BT[:, pad:], labels_BT=one.labels_BT[:, pad:])
        changed += count_moved(lab.route(router, one), padded_BTL[row : row + 1, pad:])
    assert changed <= TIES, f"{changed} of {len(pads)} sequences are routed differently behind padding"


def _pad(token_BT: Tensor, pads: Sequence[int]) -> Tensor:
    """So many -1 in front of each sequence, whose end is cut off."""
    shifted = zip(token_BT, pads, strict=True)
    return torch.stack(
        [torch.cat((row_T.new_full((pad,), PADDING), row_T[: len(row_T) - pad])) for row_T, pad in shifted]
    )


def _other(token_BT: Tensor) -> Tensor:
    """Tokens that all differ from these."""
    generator = torch.Generator().manual_seed(9)
    return (token_BT + torch.randint(1, VOCABULARY, token_BT.shape, generator=generator)) % VOCABULARY
