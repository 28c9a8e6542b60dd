"""Processes without labels: what is in their reach, and what comes of those that do not answer as they should."""

import os
import random
import time

import msgspec
import pytest
import torch
from safetensors.torch import save_file
from test_evaluate import batches_of

from duo.evaluation.decide import Spent
from duo.leaderboard.sealed import __main__ as child
from duo.leaderboard.sealed.prefixes import PLACES, draw_places
from duo.leaderboard.sealed.protocol import Answer, Job, read_answer, read_job, read_routes, write_answer, write_job

JOB = Job(router="fixed", options={}, budget={}, backbone={}, seed=0, device="cpu", threads=1)
SPENT = Spent(router_flops=1.0, passes=0.0, seconds=1.0, router_parameters=0, router_bytes=0)


def test_a_job_holds_the_inputs_and_no_label(tmp_path):
    parts = [batches_of((3, 2)), batches_of((4,), tokens=3)]
    write_job(tmp_path, JOB, parts)
    _, found = read_job(tmp_path)
    for batch, again in zip(sum(parts, []), sum(found, []), strict=True):
        assert torch.equal(batch.tokens_BT, again.tokens_BT)
        assert torch.equal(batch.sequence_B, again.sequence_B)
        assert (again.labels_BT == -1).all()
        assert again.domain == batch.domain


@pytest.fixture
def answered(tmp_path):
    """Writes an answer that is as it should be but for what is altered."""
    parts = [batches_of((3, 2))]

    def write(alter=lambda routes: routes, **changes):
        routes = [[torch.ones(*batch.tokens_BT.shape, 4, dtype=torch.uint8) for batch in parts[0]]]
        write_answer(tmp_path, Answer(**{"spent": [[SPENT] * 2]} | changes), alter(routes))
        return read_routes(tmp_path, read_answer(tmp_path), parts, layers=4)

    return write


def test_an_answer_comes_as_it_was_given(answered):
    ((first, second),) = answered()
    assert first[0].shape == (3, 6, 4)
    assert second == (second[0], SPENT)


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda routes: [[part.float() for part in routes[0]]], "holds torch.float32"),
        (lambda routes: [[part[:, 1:] for part in routes[0]]], "not modules"),
        (lambda routes: [[part + 2 for part in routes[0]]], "not modules"),
        (lambda routes: [routes[0][:1]], "other routes than were asked for"),
        (lambda routes: [*routes, [part + 0 for part in routes[0]]], "other routes than were asked for"),
    ],
)
def test_routes_that_were_not_asked_for_are_refused(answered, alter, said):
    with pytest.raises(ValueError, match=said):
        answered(alter)


@pytest.mark.parametrize("spent", [[], [[SPENT]], [[SPENT] * 2] * 2])
def test_costs_that_are_missing_are_refused(answered, spent):
    with pytest.raises(ValueError, match="does not say what every batch cost"):
        answered(spent=spent)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"spent": [[{"passes": -1}]]}', '{"failed": 3}', '{"surplus": 1}', '{"spent": NaN}', "{" * 9999],
)
def test_what_is_no_answer_is_refused(tmp_path, text):
    (tmp_path / "answer.json").write_text(text)
    with pytest.raises(ValueError, match="is no answer"):
        read_answer(tmp_path)


def test_costs_below_zero_are_no_answer(tmp_path):
    wrong = msgspec.to_builtins(Answer(spent=[[SPENT]]))
    wrong["spent"][0][0]["router_flops"] = -1.0
    (tmp_path / "answer.json").write_bytes(msgspec.json.encode(wrong))
    with pytest.raises(ValueError, match="router_flops|>= 0"):
        read_answer(tmp_path)


def test_files_of_others_and_files_that_are_too_large_are_not_read(tmp_path):
    (tmp_path / "secret").write_text('{"failed": "secret"}')
    (tmp_path / "answer.json").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="answer.json is missing"):
        read_answer(tmp_path)
    (tmp_path / "answer.json").unlink()
    with (tmp_path / "answer.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ValueError, match="larger than what was asked for"):
        read_answer(tmp_path)
    (tmp_path / "answer.json").unlink()
    write_answer(tmp_path, Answer(spent=[[SPENT] * 2]))
    save_file({"0/0": torch.zeros(1 << 25, dtype=torch.uint8)}, tmp_path / "routes.safetensors")
    with pytest.raises(ValueError, match="routes.safetensors is larger"):
        read_routes(tmp_path, read_answer(tmp_path), [batches_of((3, 2))], layers=4)


def test_what_a_router_says_is_one_line_that_moves_no_cursor(tmp_path):
    write_answer(tmp_path, Answer(failed="a\nb \x1b[2J" + "c" * 9999))
    said = read_answer(tmp_path).failed
    assert said.startswith("a b [2Jcc")
    assert len(said) <= 500


def test_places_are_drawn_over_all_parts_shorter_prefixes_first_and_no_two_draws_are_alike():
    parts = {"scores/held": batches_of((40, 3), tokens=20), "subset/held": batches_of((2,), tokens=4)}
    first, second = ([*draw_places(parts, random.SystemRandom())] for _ in range(2))
    assert first != second
    assert [place.cut for place in first] == sorted(place.cut for place in first)
    assert sum(place.part == "scores/held" for place in first) == PLACES == len({*first}) - 6
    assert {place.cut for place in first if place.part == "scores/held"} <= set(range(1, 20))
    assert {place[::2] for place in first if place.part == "subset/held"} == {
        (cut, row) for cut in (1, 2, 3) for row in (0, 1)
    }


def test_sequences_of_one_token_have_no_place():
    assert [*draw_places({"scores/held": batches_of((3,), tokens=1)}, random.SystemRandom())] == []


def test_the_child_does_nothing_in_a_folder_of_anybody_else(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments in (["route"], ["train"], [], ["other"]):
        assert child.main(arguments) == 2
        assert "started by submit and verify" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_nothing_but_its_own_folder_is_in_the_reach_of_a_child_by_ordinary_ways(subject_of, monkeypatch):
    for name in ("DUO_SECRET", "HF_HOME", "AWS_SECRET_ACCESS_KEY", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "x")
    subject, data = subject_of("snoops")
    with pytest.raises(ValueError, match="'snoops' of package strange-evaders 1.0 failed in route: ") as raised:
        subject.score(data)
    said = str(raised.value)
    assert "'files': ['backbone.safetensors', 'inputs.safetensors', 'job.json', 'router.safetensors']" in said
    places = "'DUO_LEADERBOARD_STORE', 'HOME', 'PYTHONPATH', 'TEMP', 'TMP', 'TMPDIR', 'USERPROFILE', 'XDG_CACHE_HOME'"
    assert f"'variables': [{places}]" in said
    assert "'home': True, 'labels': False, 'opened': ['/dev/null', '/dev/null', 'pipe']" in said


def test_a_child_that_dies_is_told_in_one_line_that_names_the_router(subject_of):
    subject, data = subject_of("dies")
    with pytest.raises(
        ValueError, match="'dies' of package .*, in a process without labels, ended with 3: this: "
    ) as raised:
        subject.score(data)
    assert str(raised.value).isprintable()


@pytest.mark.long
def test_a_child_that_hangs_is_ended_with_all_that_it_has_started(subject_of):
    subject, data = subject_of("hangs")
    start = time.monotonic()
    with pytest.raises(ValueError, match="'hangs' .* gave no answer within 20 seconds: give it more with --patience"):
        type(subject)(subject.recipe, subject.backbone, subject.router, patience=20).score(data)
    assert time.monotonic() - start < 40
    assert not any("time.sleep(60)" in words for words in _commands())


def _commands():
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline") as file:
                yield file.read()
        except OSError:
            continue


@pytest.mark.long
def test_a_child_that_writes_the_answer_itself_is_refused_and_one_that_is_loud_is_not(subject_of):
    subject, data = subject_of("lies")
    with pytest.raises(ValueError, match="'lies' of package .* gave no answer: answer.json is no answer"):
        subject.score(data)
    subject, data = subject_of("prints")
    assert subject.score(data).row.scores


@pytest.mark.long
def test_a_router_gets_the_published_backbone_that_its_options_name_and_none_of_its_tokens(
    subject_of, submitted, monkeypatch
):
    monkeypatch.setenv("DUO_LEADERBOARD_STORE", str(submitted))
    (teacher,) = os.listdir(submitted / "backbones")
    subject, data = subject_of("advised", f"router.teacher={teacher}")
    row = subject.score(data).row
    assert not row.bound
    assert row.scores["held"].router_parameters > 0
