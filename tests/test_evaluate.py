import math

import numpy as np
import pytest
import torch
from conftest import random_tokens, toy_backbone
from msgspec import structs

from duo import Budget, Router, Spec, one_hot, replay
from duo.data import Batch
from duo.evaluation.decide import decide
from duo.evaluation.evaluate import evaluate, score_routes
from duo.evaluation.score import TIMES
from duo.routing.registry import blame
from duo.routing.trial import Trial
from routers.fixed import Fixed
from routers.oracle import Oracle
from routers.random import Random
from routers.softmax_budget import SoftmaxBudget

SPEC = Spec(3, 16, Budget(1))


def batches_of(sizes=(3, 2, 4), tokens=6):
    found, first = [], 0
    for size in sizes:
        tokens_BT = random_tokens(size, tokens + 1, seed=first)
        ids = torch.arange(first, first + size)
        found.append(Batch(tokens_BT[:, :-1], tokens_BT[:, 1:], ids, ids, torch.full((size,), 20), "text"))
        first += size
    return found


def test_a_score_is_the_mean_over_all_tokens_of_one_real_pass():
    backbone, router, batches = toy_backbone(), Random(SPEC), batches_of()
    score = evaluate(backbone, router, batches, seed=3)
    losses = []
    for batch in batches:
        trial = Trial.of(batch, backbone, seed=3)
        with torch.no_grad():
            probability = backbone(batch.tokens_BT, router.route(trial)).logits_BTV.double().softmax(-1)
        losses += (-probability.gather(-1, batch.labels_BT[..., None]).log()).flatten().tolist()
    assert score.tokens == len(losses) == 54
    assert score.loss == pytest.approx(sum(losses) / len(losses), abs=1e-6)
    assert score.perplexity == pytest.approx(math.exp(score.loss))
    assert score.bits_per_byte == pytest.approx(sum(losses) / math.log(2) / 180)
    assert score.loss_interval[0] < score.loss < score.loss_interval[1]
    assert score.share == pytest.approx({"skip": 0, "small": 2 / 3, "big": 1 / 3})
    assert score.flops_per_token == pytest.approx(score.budget_flops_per_token)
    assert (score.within_budget, score.passes, score.labels_consulted) == (True, 0, False)
    assert 0 < score.router_flops_per_token < 0.2 * score.flops_per_token  # draws and looks up, and multiplies nothing


def test_the_order_and_size_of_batches_change_nothing():
    backbone, batches = toy_backbone(), batches_of()
    whole = [torch.cat(parts) for parts in list(zip(*batches, strict=True))[:5]]
    one = evaluate(backbone, Random(SPEC), [Batch(*whole, "text")])
    many = evaluate(backbone, Random(SPEC), batches[::-1])
    assert one.loss == pytest.approx(many.loss, abs=1e-6)
    assert one.sequences.loss_B == pytest.approx(many.sequences.loss_B, abs=1e-5)
    assert one.loss_interval == pytest.approx(many.loss_interval, abs=1e-4)


def test_padding_and_missing_labels_are_not_scored():
    backbone = toy_backbone()
    (batch,) = batches_of((2,))
    padded = batch._replace(
        tokens_BT=torch.cat((torch.full((2, 3), -1), batch.tokens_BT), dim=1),
        labels_BT=torch.cat((torch.full((2, 3), -1), batch.labels_BT), dim=1),
    )
    plain, wide = evaluate(backbone, Random(SPEC), [batch]), evaluate(backbone, Random(SPEC), [padded])
    for name in ("loss", "tokens", "flops_per_token", "budget_flops_per_token"):
        assert getattr(plain, name) == pytest.approx(getattr(wide, name), abs=1e-5)
    assert plain.share == pytest.approx(wide.share)
    used_TLM, share_TLM = wide.sequences.used_TLM, wide.sequences.share_TLM
    assert used_TLM.sum(-1).tolist() == [[0] * 3] * 3 + [[2] * 3] * plain.sequences.used_TLM.shape[0]
    assert (share_TLM[3:] == used_TLM[3:] / 2).all()
    assert (share_TLM[:3] == 0).all()


@pytest.mark.parametrize(
    ("router", "within"),
    [
        (Fixed(SPEC, pattern=[1, 1, 2]), True),
        (Fixed(SPEC, pattern=[1, 1, 1]), True),
        (Fixed(SPEC, pattern=[1, 2, 2]), False),
        (Fixed(SPEC, pattern=[0, 1, 1]), False),  # cheaper, but skip has no budget
        (Fixed(Spec(3, 16, Budget(3)), pattern=[2, 2, 1]), False),  # cheaper, but small has none
    ],
)
def test_within_budget_means_flops_and_modules(router, within):
    assert evaluate(toy_backbone(), router, batches_of()).within_budget is within


def test_deciding_is_metered_and_not_declared():
    class Peeking(Router):
        """Looks at a whole pass and at the labels, then multiplies something in its gate."""

        def route(self, trial):
            trial.loss(trial.run(replay(torch.ones(*trial.tokens_BT.shape, 3))))
            weight = torch.randn(16, 3)
            return lambda x_BSD, layer: one_hot((x_BSD @ weight).argmax(-1).clamp(min=1))

    class InTheGate(Router):
        """The same, while the gate is running."""

        def route(self, trial):
            def gate(x_BSD, layer):
                if layer == 0:
                    trial.loss(trial.run(replay(torch.ones(*trial.tokens_BT.shape, 3))))
                return one_hot((x_BSD @ torch.ones(16, 3)).argmax(-1).clamp(min=1))

            return gate

    backbone = toy_backbone()
    all_small = evaluate(backbone, Fixed(SPEC, pattern=[1, 1, 1]), batches_of())
    for kind in (Peeking, InTheGate):
        score = evaluate(backbone, kind(SPEC), batches_of())
        assert (score.passes, score.labels_consulted) == (1, True)
        least = all_small.flops_per_token + 3 * 2 * 16 * 3
        assert least < score.router_flops_per_token < 1.2 * least  # and what is no product


class AsksLater(Fixed):
    """Asks for labels in one batch alone, while its gate runs; `careful`, it decides without where there are none."""

    careful = False

    def route(self, trial):
        gate = super().route(trial)

        def asking(x_BSD, layer):
            if layer == 2 and len(trial.tokens_BT) == 4:
                try:
                    trial.loss(trial.run(gate))
                except ValueError as error:
                    if not self.careful:
                        raise RuntimeError("it cannot do without") from error
            return gate(x_BSD, layer)

        return asking


def test_who_asks_for_labels_anywhere_is_evaluated_again_with_them_from_the_start_and_is_a_bound():
    class Noting(AsksLater):
        def route(self, trial):
            seen.append((trial.sequence_B[0].item(), trial._labels_BT is not None))
            return super().route(trial)

    seen, backbone = [], toy_backbone()
    score = evaluate(backbone, Noting(SPEC), batches_of((3, 2, 4)))
    assert score.labels_consulted
    assert [*dict.fromkeys(seen)] == [*((first, given) for given in (False, True) for first in (0, 3, 5))]
    assert score.passes == pytest.approx(4 / 9)
    plain = evaluate(backbone, Fixed(SPEC), batches_of((3, 2, 4)))
    assert (score.loss, plain.labels_consulted) == (plain.loss, False)


def test_who_can_do_without_labels_is_deployable():
    router = AsksLater(SPEC)
    router.careful = True
    assert not evaluate(toy_backbone(), router, batches_of((3, 2, 4))).labels_consulted


def test_labels_lie_nowhere_on_the_trial_of_an_evaluation():
    class Searches(Fixed):
        def route(self, trial):
            held = [value for value in vars(trial).values() if isinstance(value, torch.Tensor)]
            found.append([any(torch.equal(value, batch.labels_BT) for value in held) for batch in batches])
            return super().route(trial)

    batches, found = batches_of(), []
    evaluate(toy_backbone(), Searches(SPEC), batches)
    assert found
    assert not any(map(any, found))


def test_a_router_that_needs_labels_asked_to_generate_is_told_the_way_out():
    router, tokens_BT = Oracle(SPEC), random_tokens(2, 5)
    said = (
        "router 'oracle' of package duo-llm .*this trial has no labels, for its tokens are being generated.*criterion"
    )
    with pytest.raises(ValueError, match=said), blame(router, "route"):
        router.route(Trial(toy_backbone(), tokens_BT))


def test_routes_that_were_decided_elsewhere_get_the_score_that_they_have_here():
    backbone, router, batches = toy_backbone(), SoftmaxBudget(SPEC), batches_of()
    torch.nn.init.normal_(next(router.parameters()))
    decided = [
        (run.weight_BTLM.argmax(-1).to(torch.uint8), spent) for _, run, spent in decide(backbone, router, batches, 0)
    ]
    here, there = evaluate(backbone, router, batches), score_routes(backbone, router, batches, decided)
    untimed = dict.fromkeys(TIMES, 0)
    assert structs.replace(here, **untimed) == structs.replace(there, **untimed)
    assert np.array_equal(here.sequences.loss_ZB, there.sequences.loss_ZB)
    assert np.array_equal(here.sequences.used_TLM, there.sequences.used_TLM)


def test_a_learned_routers_arithmetic_is_its_deciding_cost():
    score, products = evaluate(toy_backbone(), SoftmaxBudget(SPEC), batches_of()), 3 * 2 * 16 * 2
    elements = 3 * (2 * 3 + 2 * 2 + 3 * 2 + 3 * 2 + 3 + 1 + 3 * 6)  # about: logits, offset, choice, weights; a layer
    assert products + elements / 2 < score.router_flops_per_token < products + elements * 2
    assert (score.passes, score.labels_consulted) == (0, False)


@pytest.mark.parametrize("weights", [[0.0, 0.5, 0.5], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, math.nan, 1.0]])
def test_a_gate_that_is_not_one_hot_in_evaluation_is_refused(weights):
    class Soft(Router):
        def route(self, trial):
            return lambda x_BSD, layer: torch.tensor(weights).expand(*x_BSD.shape[:2], 3)

    with pytest.raises(ValueError, match=r"Soft is not exactly one-hot.*\[0\.0"):
        evaluate(toy_backbone(), Soft(SPEC), batches_of())


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(ValueError, match="no batch"):
        evaluate(toy_backbone(), Random(SPEC), [])


def test_a_single_document_has_no_interval_and_a_score_says_of_how_many_it_is():
    (batch,) = batches_of((6,))
    for document_B, documents in ((torch.zeros(6), 1), (torch.arange(6) // 2, 3)):
        score = evaluate(toy_backbone(), Random(SPEC), [batch._replace(document_B=document_B.long())])
        assert (score.documents, score.loss_interval is None) == (documents, documents == 1)


def test_a_searched_row_shows_what_was_promised_and_what_was_attained():
    committed = evaluate(toy_backbone(), Oracle(SPEC), batches_of())
    same = evaluate(toy_backbone(), Oracle(SPEC, context="same"), batches_of())
    assert committed.promised_loss == pytest.approx(committed.loss, abs=1e-5)
    assert same.loss > same.promised_loss + 1e-3
    assert committed.labels_consulted
    assert committed.passes > 1
    assert evaluate(toy_backbone(), Random(SPEC), batches_of()).promised_loss is None
