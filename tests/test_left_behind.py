"""What a router leaves behind when it has routed: on its trial, on the meter, and so in its row."""

import pytest
from conftest import toy_backbone
from msgspec import structs
from test_evaluate import SPEC, batches_of

from duo.evaluation.evaluate import evaluate
from duo.evaluation.row import Row
from duo.search import patterns_of
from routers.fixed import Fixed


@pytest.mark.parametrize(
    ("sequences", "tokens", "promises"), [(2, 3, False), (1, 6, False), (2, 6, True), (9, 99, True)]
)
def test_a_search_of_a_part_promises_nothing_for_the_whole(sequences, tokens, promises):
    class Partial(Fixed):
        """Searches a part of its trial, and follows a fixed pattern."""

        def route(self, trial):
            trial.part(sequences, tokens).search(patterns_of(3, self.spec.budget), [self.spec.budget])
            return super().route(trial)

    score = evaluate(toy_backbone(), Partial(SPEC), batches_of((2, 2)))
    assert (score.promised_loss is not None) is promises
    assert score.labels_consulted


def _shortened(trial):
    trial.tokens_BT = trial.tokens_BT[:, :4]


def _foretold(trial):
    trial.tokens_BT = trial.tokens_BT.roll(-1, 1)


def _overwritten(trial):
    trial.tokens_BT.fill_(3)


@pytest.mark.parametrize(
    ("leave", "said"),
    [
        (_shortened, "changed the tokens of its trial"),
        (_foretold, "changed the tokens of its trial"),
        (_overwritten, "changed the tokens of its trial"),
    ],
)
def test_what_a_router_must_not_leave_behind_is_told_in_a_line_that_names_it(leave, said):
    class Untidy(Fixed):
        def route(self, trial):
            gate = super().route(trial)
            leave(trial)
            return gate

    with pytest.raises(ValueError, match=rf"Untidy failed in route: ValueError: .*{said}") as raised:
        evaluate(toy_backbone(), Untidy(SPEC), batches_of((2,)))
    assert len(str(raised.value).splitlines()) == 1


def test_a_router_that_fails_the_second_time_alone_is_named():
    class Once(Fixed):
        asked = False

        def route(self, trial):
            if self.asked:
                raise RuntimeError("asked before")
            self.asked = True
            return super().route(trial)

    with pytest.raises(ValueError, match="Once failed in route: RuntimeError: asked before"):
        evaluate(toy_backbone(), Once(SPEC), batches_of((2,)))


@pytest.mark.parametrize("part", ["scores", "subset"])
def test_labels_read_on_any_of_the_tokens_make_a_bound(part):
    plain = evaluate(toy_backbone(), Fixed(SPEC), batches_of((2,)))
    reading = structs.replace(plain, labels_consulted=True)
    row = Row("mine", {}, SPEC.budget._asdict(), scores={"held": plain}, subset={"held": plain})
    assert not row.bound
    assert structs.replace(row, **{part: {"held": plain, "other": reading}}).bound
