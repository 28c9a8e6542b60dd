"""Searches that take long: how long is known before, and a killed one goes on with the next sequences."""

import logging
from types import SimpleNamespace

import pytest
import torch
from conftest import command, random_tokens, toy_backbone
from msgspec import structs
from test_run import comparable

from duo import Budget, Router, Spec, one_hot, replay
from duo.data.batch import Batch
from duo.evaluation import foresee
from duo.evaluation.evaluate import evaluate
from duo.evaluation.foresee import foresee_seconds
from duo.evaluation.record import Shelf
from duo.evaluation.score import TIMES
from duo.search import patterns
from duo.stages import score
from routers.advised import Advised
from routers.oracle import Oracle

SPEC = Spec(5, 16, Budget(2))


class Killed(BaseException):
    """As a signal: nothing takes it for a mistake."""


def batches_of(sequences=6, each=2, tokens=5):
    tokens_BT = random_tokens(sequences, tokens + 1)
    rows = torch.arange(sequences)
    return [
        Batch(tokens_BT[at, :-1], tokens_BT[at, 1:], at, at // 2, torch.full((len(at),), 9), "toy")
        for at in rows.split(each)
    ]


def killing(router, after):
    """The same router, which is killed after so many routes."""
    route, left = router.route, [after]

    def killed(trial):
        gate = route(trial)
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return gate

    router.route = killed
    return router


def same(one, other):
    plain = [
        {name: value for name, value in structs.asdict(part).items() if name not in TIMES} for part in (one, other)
    ]
    assert plain[0] == plain[1]
    for ours, theirs in zip(one.sequences, other.sequences, strict=True):
        assert (ours == theirs).all()


@pytest.mark.parametrize("kind", [Oracle, Advised])
def test_a_search_killed_after_any_batch_goes_on_with_the_next_one_and_gives_the_same_score(kind, tmp_path):
    torch.manual_seed(0)
    backbone, batches = toy_backbone(layers=5), batches_of()
    new = lambda: kind(SPEC, search="local")  # noqa: E731
    torch.manual_seed(1)
    whole = evaluate(backbone, new(), batches)
    for done in range(len(batches)):
        shelf = Shelf(tmp_path / str(done))
        torch.manual_seed(1)
        with pytest.raises(Killed):
            evaluate(backbone, killing(new(), done), batches, shelf=shelf)
        assert [shelf.holds(batch) for batch in batches] == [index < done for index in range(len(batches))]
        torch.manual_seed(1)
        rest = killing(new(), len(batches) - done)  # asks for no more than what is left
        same(evaluate(backbone, rest, batches, shelf=shelf), whole)
        assert all(map(shelf.holds, batches))
        shelf.clear()
        assert not (tmp_path / str(done)).exists()


def test_records_of_other_sequences_and_damaged_ones_are_not_taken(tmp_path):
    backbone, batches, shelf = toy_backbone(layers=5), batches_of(), Shelf(tmp_path)
    whole = evaluate(backbone, Oracle(SPEC, search="local"), batches, shelf=shelf)
    (first, *_) = sorted(tmp_path.rglob("0.json"))
    first.write_text("{")
    larger = batches_of(each=3)
    assert shelf.part("with_labels").find(batches[0]) is None
    assert shelf.part("with_labels").find(batches[1]).sequence_B.tolist() == [2, 3]
    assert shelf.part("with_labels").find(larger[0]) is None
    same(evaluate(backbone, Oracle(SPEC, search="local"), batches, shelf=shelf), whole)


class Slow(Router):
    """A router that takes two seconds of a clock of its own for every token it is asked about."""

    search_method = "local"
    clock = 0.0
    labels = False

    def route(self, trial):
        if self.labels:
            trial.search(torch.full((1, 5), 2), [torch.tensor([0, 0, 5])])
        Slow.clock += 2.0 * trial.tokens_BT.numel()
        return replay(torch.full((*trial.tokens_BT.shape, 5), 1))


@pytest.mark.parametrize("labels", [False, True])
def test_what_a_search_will_take_is_reckoned_from_a_few_tokens(labels, monkeypatch):
    router, batches = Slow(SPEC), batches_of(6, 2, 10)
    router.labels = labels
    monkeypatch.setattr(foresee, "time", SimpleNamespace(perf_counter=lambda: Slow.clock))
    before = Slow.clock
    assert foresee_seconds(toy_backbone(layers=5), router, batches) == pytest.approx(2.0 * 60)
    assert Slow.clock - before == 2.0 * 2 * (1 + foresee.STEPS)  # the first two sequences' first positions
    assert foresee_seconds(toy_backbone(layers=5), router, []) == 0


def test_a_router_that_needs_no_label_is_timed_without_any():
    class Nosy(Router):
        def route(self, trial):
            assert trial._labels_BT is None
            return lambda x_BSD, layer: one_hot(torch.ones(x_BSD.shape[:2]))

    assert foresee_seconds(toy_backbone(layers=5), Nosy(SPEC), batches_of()) > 0


@pytest.fixture
def deep(small, monkeypatch):
    """Arguments of a run whose patterns are too many to list, for want of a longer list."""
    monkeypatch.setattr(patterns, "MOST_LISTED", 5)
    monkeypatch.setattr(score, "SEARCHED", 2)
    return [
        *small, "backbone.layers=4", "budget.big=2", "stage1.steps=2", "router={name: oracle}", "full_holdout=false",
        "data.subset_sequences=6", "data.subset_tokens=4",
    ]  # fmt: skip


def test_a_run_killed_in_the_middle_of_the_oracles_search_gives_the_same_row(deep, tmp_path, monkeypatch):
    where = lambda name: (f"output={tmp_path}/{name}", f"cache={tmp_path}/cache-{name}")  # noqa: E731
    command(*deep, *where("whole"))
    route, calls = Oracle.route, []

    def counted(self, trial):
        calls.append(len(trial.tokens_BT))
        if len(calls) == 4:  # the first one has no labels
            raise Killed
        return route(self, trial)

    with monkeypatch.context() as patch:
        patch.setattr(score, "foresee_seconds", lambda *given: 0.0)
        patch.setattr(Oracle, "route", counted)
        with pytest.raises(Killed):
            command(*deep, *where("run"))
    assert len([*(tmp_path / "cache-run").rglob("searched/*/*.json")]) == 2
    command(*deep, *where("run"))
    assert not [*(tmp_path / "cache-run").rglob("searched")]
    assert comparable(tmp_path / "run") == comparable(tmp_path / "whole")


def test_a_search_of_minutes_says_so_before_it_begins_and_a_short_one_does_not(deep, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "duo")
    command(*deep, f"output={tmp_path}/run", f"cache={tmp_path}/cache")
    assert "minutes for" not in caplog.text
    monkeypatch.setattr(score, "foresee_seconds", lambda *given: 125.0)
    command(*deep, "seed=1", f"output={tmp_path}/other", f"cache={tmp_path}/cache")
    assert "search  about 3 minutes for 24 tokens, 2 sequences at a time" in caplog.text
