"""Routers that evade, each with what catches it; those that evade costs are in `test_cost_evaders`."""

import pytest
from conftest import command
from forging import entry_of
from msgspec import structs

from duo.evaluation.evaluate import evaluate
from duo.evaluation.row import Row
from duo.leaderboard.__main__ import main
from duo.leaderboard.sealed.prefixes import check_looking_ahead
from duo.leaderboard.submit import Candidate, check_claim
from duo.stages.score import score_row
from duo.storage.store import Store


@pytest.fixture(scope="module")
def honest(subject_of):
    """The scores of a router that decides by the token alone."""
    subject, data = subject_of("parity")
    return evaluate(subject.backbone.module, subject.router.module, data.holdout("held"))


def plain(score):
    return structs.replace(score, seconds_per_token=0, time_ratio=0, unexplained_time=False)


def test_labels_behind_deepcopy_lie_on_no_trial_of_an_evaluation(subject_of, honest):
    subject, data = subject_of("behinddeepcopy")
    score = evaluate(subject.backbone.module, subject.router.module, data.holdout("held"))
    assert not score.labels_consulted
    assert (score.loss, score.flops_per_token) == (honest.loss, honest.flops_per_token)


def test_labels_found_in_the_memory_of_a_run_are_in_no_sealed_process_so_its_claim_is_refused(subject_of, honest):
    subject, data = subject_of("throughgc")
    claimed = evaluate(subject.backbone.module, subject.router.module, data.holdout("held"))
    assert abs(claimed.loss - honest.loss) > 1e-3
    row = subject.score(data).row
    assert not row.bound
    assert row.scores["held"].loss == honest.loss
    with pytest.raises(ValueError, match=r"the run says that its loss on held is .* and no label in reach"):
        check_claim(Candidate("throughgc", subject.recipe, {"held": claimed.loss}), row)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("whole", "scores/held"),
        ("remembers", "subset/held"),
        pytest.param("betweencuts", "scores/held", marks=pytest.mark.long),
        pytest.param("adapts", "scores/held", marks=pytest.mark.long),
    ],
)
def test_who_looks_ahead_anywhere_or_at_other_sequences_is_named_with_the_place(subject_of, name, part):
    subject, data = subject_of(name)
    sealed = subject.score(data)
    only = sealed._replace(parts={part: sealed.parts[part]})  # it may be honest elsewhere
    with pytest.raises(ValueError, match=r"on held it looks ahead, .*in sequence \d+ .* at position \d+, layer 0"):
        check_looking_ahead(subject, only)


def test_an_honest_router_is_scored_as_in_an_evaluation_and_looks_nowhere(subject_of, honest):
    subject, data = subject_of("parity")
    sealed = subject.score(data)
    check_looking_ahead(subject, sealed)
    ordinary = score_row(subject.recipe, subject.backbone, subject.router, data)
    assert plain(sealed.row.scores["held"]) == plain(ordinary.scores["held"]) == plain(honest)
    assert plain(sealed.row.subset["held"]) == plain(ordinary.subset["held"])
    assert sealed.row.digests == ordinary.digests


@pytest.mark.long
def test_decisions_that_rounding_alone_makes_are_forgiven_and_no_decision_that_the_future_makes(
    subject_of, monkeypatch, caplog
):
    monkeypatch.setattr("duo.leaderboard.sealed.prefixes.SUSPECTS", 1.0)
    subject, data = subject_of("even")
    sealed = subject.score(data)
    caplog.set_level("INFO")
    check_looking_ahead(subject, sealed)
    assert next(record.args[0] for record in caplog.records if "differ" in record.msg) > 0
    monkeypatch.setattr("duo.leaderboard.sealed.prefixes.ROUNDS", 3)
    subject, data = subject_of("whole")
    with pytest.raises(ValueError, match="looks ahead"):
        check_looking_ahead(subject, subject.score(data))


def test_who_needs_labels_asked_to_be_sealed_is_a_bound(subject_of):
    subject, data = subject_of("asks")
    row, parts, routes = subject.score(data)
    assert isinstance(row, Row)
    assert row.bound
    assert row.scores["held"].labels_consulted
    assert (parts, routes) == ({}, {})


@pytest.mark.long
def test_who_asks_for_labels_of_short_inputs_alone_is_a_bound_in_its_whole_row(subject_of):
    subject, data = subject_of("asksofshort")
    row = subject.score(data).row
    assert row.bound
    assert row.subset["held"].labels_consulted
    assert score_row(subject.recipe, subject.backbone, subject.router, data).bound


@pytest.mark.long
def test_holdouts_learnt_by_heart_are_found_by_training_again_and_labels_in_memory_when_submitted(
    strangers, small, tmp_path, capsys
):
    store, cache = f"leaderboard.store={tmp_path}/board", f"cache={tmp_path}/cache"
    rows = ", ".join(f"{name}: {{router: {{name: {name}}}}}" for name in ("byheart", "throughgc"))
    command(*small, f"compare.rows={{{rows}}}", f"output={tmp_path}/run", cache)
    assert main(["submit", f"{tmp_path}/run", store, cache]) == 1
    said = capsys.readouterr().out
    assert "refused  throughgc: the run says that its loss on held" in said
    assert "1 entries added, 1 refused" in said
    digest = entry_of(Store(f"{tmp_path}/board"), "byheart")[0]
    assert main(["verify", digest, store, "--yes"]) == 0
    assert main(["verify", digest, store, "--yes", "--retrain"]) == 1
    assert "its weights do not come from its recipe" in capsys.readouterr().err
