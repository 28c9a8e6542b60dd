"""What is wrong with a stream: its shards, its checkpoint, its settings; each told in one line."""

import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from toy_streams import TOTAL, documents, mix, opened, processes, settings, stream, take, write, write_shards

from duo.data import DataConfig
from duo.data import hub as hub_module
from duo.data.stream import Rounds, Streamed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def plain(folder, tmp_path_factory):
    return opened(settings(folder), tmp_path_factory.mktemp("cache"))


def copied(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "own")
    return tmp_path / "own"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_cut_short_is_named_in_one_line(folder, tmp_path, workers):
    own = copied(folder, tmp_path)
    data = opened(settings(own), tmp_path / "cache")
    (own / "a2.jsonl").write_bytes((own / "a2.jsonl").read_bytes()[:-9])
    with pytest.raises(
        ValueError, match=rf"^data.train: shard {own}/a2.jsonl cannot be read: row \d+ behind byte \d+ is no"
    ) as error:
        take([stream(data._plan, workers=workers)], 60)
    assert "\n" not in str(error.value)


def test_a_shard_that_holds_less_than_it_did_before_the_checkpoint_is_named(folder, tmp_path):
    own = copied(folder, tmp_path)
    data = opened(settings(own, lanes=1), tmp_path / "cache")
    take([first := stream(data._plan)], 20)
    for path in own.glob("a*.jsonl"):
        path.write_text("")
    (second := stream(data._plan)).load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match=r"^data.train: shard .*jsonl was cut short since the checkpoint: 0 documents"):
        take([second], 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_fails_is_tried_again_then_named(folder, tmp_path, monkeypatch, caplog, workers):
    own = copied(folder, tmp_path)
    data = opened(settings(own), tmp_path / "cache")
    monkeypatch.setattr(hub_module, "WAITS", (0.01, 0.01))
    (own / "a1.jsonl").rename(own / "gone")
    with pytest.raises(
        ValueError, match=rf"^data.train: shard {own}/a1.jsonl cannot be read in 3 tries .*No such file"
    ):
        take([stream(data._plan, workers=workers)], 60)
    assert workers or caplog.text.count("trying again") == 2


def test_a_shard_that_fails_once_changes_nothing(folder, plain, monkeypatch):
    expected, failed = take([stream(plain._plan)], 30), set()
    monkeypatch.setattr(hub_module, "WAITS", (0.01, 0.01))

    def broken(file, column, piece):
        for number, text in enumerate(read(file, column, piece)):
            if number == 1 and piece not in failed:
                failed.add(piece)
                raise OSError("the line is dead")
            yield text

    read = hub_module.READERS[".jsonl"]
    monkeypatch.setitem(hub_module.READERS, ".jsonl", broken)
    assert np.array_equal(take([stream(plain._plan)], 30), expected)
    assert len(failed) > 3


def test_a_checkpoint_of_another_stream_is_refused_in_one_line(folder, plain, tmp_path):
    take([before := stream(plain._plan)], 3)
    other = opened(settings(folder, shuffle=50), tmp_path)
    for state in (before.state_dict(), {"given": 3}):
        with pytest.raises(ValueError, match=r"^the checkpoint is of another stream .*data.shuffle") as error:
            stream(other._plan).load_state_dict(state)
        assert "\n" not in str(error.value)
    smaller = Streamed(lambda *parts: parts, plain._plan, 0, Rounds(1000, TOTAL // 2))
    with pytest.raises(ValueError, match="batch_size"):
        smaller.load_state_dict(before.state_dict())


def test_processes_that_do_not_divide_the_lanes_are_told_what_it_costs(plain, caplog):
    processes(plain._plan, 2, 0)
    assert not caplog.text
    processes(plain._plan, 3, 0)
    assert caplog.text.count("data.lanes=4 do not divide over 3 processes") == 1


def test_a_worker_that_the_system_ends_is_told_in_one_line(plain):
    others = {*multiprocessing.active_children()}
    take([one := stream(plain._plan, workers=2)], 2)
    worker = ({*multiprocessing.active_children()} - others).pop()
    os.kill(worker.pid, signal.SIGTERM)  # a scheduler asks all processes: the chief decides
    take([one], 2)
    assert worker.is_alive()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(ValueError, match=r"^a process of data.workers=2 ended .*: start again") as error:
        take([one], 100)
    assert "\n" not in str(error.value)


def test_workers_do_not_touch_torchs_generator(plain):
    before = torch.get_rng_state()
    take([stream(plain._plan, workers=1)], 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_too_few_documents_are_an_error_that_says_what_to_lower(folder, files, tmp_path):
    with pytest.raises(
        ValueError, match=r"^data.train: 50 documents are too few for data.lanes=64: give more, or lower"
    ):
        opened(settings(folder, train=[f"{files}/train*.txt"], lanes=64), tmp_path)
    write(tmp_path / "few.jsonl", documents("c", 3))
    data = opened(settings(folder, train=[f"{tmp_path}/few.jsonl"], lanes=16), tmp_path)
    with pytest.raises(
        ValueError, match=r"^data.train: its documents are too few, so that one of data.lanes=16 gets none"
    ):
        take([stream(data._plan)], 60)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stream": False, "prepare": True}, "data.prepare is of a stream: set data.stream=true"),
        ({"stream": False, "workers": 2}, "data.workers is of a stream"),
        ({"stream": False} | mix(a=1), "data.mix is of a stream"),
        ({"workers": -1}, "data.workers=-1 must be 0 or more"),
        ({"lanes": 0}, "data.lanes=0 must be at least 1"),
        (mix(a=1) | {"train": ["x"]}, "data.train and data.mix both"),
        (mix(a=0, b=0), "the weight of a, b is 0"),
        (mix(a=-1), "data.mix.a.weight=-1 must be a number of 0 or more"),
        (mix(a="1"), "data.mix.a.weight='1' must be a number"),
        (mix(a=float("nan")), "data.mix.a.weight=nan must be a number"),
        ({"train": [], "mix": {"a": {"train": ["x"]}}}, "data.mix.a={'train': ['x']} must hold train and weight"),
        (mix(a=1, part=2), "may hold source and column"),
        (mix(a=1, source="web"), "data.mix.a.source='web' is unknown"),
        (mix(a=1, column=3), "data.mix.a.column=3 must be a column's name"),
        (mix(a=1, train="x"), "data.mix.a.train=x is no list of globs"),
        ({"train": []}, "data.source=files needs data.train"),
    ],
)  # fmt: skip
def test_a_stream_that_cannot_be_is_refused_where_it_is_set(changes, said):
    with pytest.raises(ValueError, match="^data") as error:
        settings("nowhere", **changes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_builtin_documents_are_no_stream():
    with pytest.raises(ValueError, match="data.stream=true reads documents of your own: set data.source"):
        DataConfig(stream=True)
