"""Training documents as a stream: its order, its mixture, what it goes on with, and what is wrong with a shard."""

import gzip
import json
import multiprocessing
import os
import random
import shutil
import signal
from collections import Counter
from itertools import takewhile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import command  # noqa: F401 # its import sets what tests of duo need

from duo.data import DataConfig, TextData
from duo.data import hub as hub_module
from duo.data.hub import read_shard
from duo.data.lanes import Lane, Place, Reader
from duo.data.shards import write_shard
from duo.data.stream import Rounds, Share, Streamed, merge_states
from duo.data.units import cut

LAYOUTS = [(1, 0), (1, 2), (2, 0), (2, 2), (3, 0), (4, 1)]
TOTAL, LENGTH = 12, 17


def document(number, kind, words):
    return f"<{kind}{number}> " + " ".join(f"{kind}{random.Random(number).randrange(40)}{n % 7}" for n in range(words))


def documents(kind, count=60):
    return [document(number, kind, random.Random(number).randrange(3, 50)) for number in range(count)]


def write(path, texts):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sources of three shards each, and a hold-out that holds some of their documents."""
    folder = tmp_path_factory.mktemp("shards")
    for kind in "ab":
        texts = documents(kind)
        for shard in range(3):
            write(folder / f"{kind}{shard}.jsonl", texts[shard::3])
    write(folder / "held.jsonl", [document(number, "h", 60) for number in range(20)] + documents("a")[:10])
    return folder


def mix(a, b=None, **more):
    """Settings of one source or two by their weights."""
    sources = {"a": {"train": ["x"], "weight": a} | more} | ({} if b is None else {"b": {"train": ["x"], "weight": b}})
    return {"train": [], "mix": sources}


def settings(folder, **changes):
    asked = {
        "stream": True, "train": [f"{folder}/a*.jsonl"], "holdouts": {"held": [f"{folder}/held.jsonl"]},
        "calibration": {"cal": [f"{folder}/b0.jsonl"]}, "tokens": LENGTH - 1, "batch_size": TOTAL, "lanes": 4,
        "shuffle": 48, "calibration_tokens": 0, "holdout_tokens": 0,
    }  # fmt: skip
    return DataConfig(source="files", **(asked | changes))


def opened(config, cache):
    data = TextData(config, 300, cache)
    data.setup()
    return data


@pytest.fixture(scope="module")
def mixed(folder, tmp_path_factory):
    """Both sources, three to one."""
    asked = {
        "a": {"train": [f"{folder}/a*.jsonl"], "weight": 3},
        "b": {"train": [f"{folder}/b[12].jsonl"], "weight": 1},
    }
    return opened(settings(folder, train=[], mix=asked), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def plain(folder, tmp_path_factory):
    return opened(settings(folder), tmp_path_factory.mktemp("cache"))


def stream(plan, share=Share(), workers=0, first=0):  # noqa: B008 # it never changes
    return Streamed(lambda place_N, tokens_NT: (place_N, tokens_NT), plan, workers, Rounds(1000, TOTAL, share, first))


def take(streams, count):
    """The next batches of some processes, put together: (count, TOTAL, T+1)."""
    batches = []
    iterators = [iter(one) for one in streams]
    for _ in range(count):
        parts = [next(iterator) for iterator in iterators]
        places = np.concatenate([place_N for place_N, _ in parts])
        batches.append(np.concatenate([tokens_NT for _, tokens_NT in parts])[np.argsort(places)])
        assert len({*places.tolist()}) == TOTAL
    return np.stack(batches)


def processes(plan, world, workers):
    return [stream(plan, Share(rank, world), workers) for rank in range(world)]


def together(streams):
    """The checkpoint of processes that cannot speak to one another here."""
    states = [one.state_dict() for one in streams]
    return states[0] | {"lanes": merge_states([state["lanes"] for state in states])}


@pytest.fixture(scope="module")
def whole(mixed):
    return take([stream(mixed._plan)], 60)


@pytest.mark.parametrize(("world", "workers"), LAYOUTS)
def test_the_stream_is_the_same_in_any_layout(mixed, whole, world, workers):
    assert np.array_equal(take(processes(mixed._plan, world, workers), 30), whole[:30])


@pytest.mark.parametrize(
    ("before", "after"),
    [((1, 0), (1, 0)), ((1, 2), (1, 2)), ((2, 2), (2, 2)), ((1, 0), (2, 2)), ((2, 0), (1, 2)), ((3, 0), (4, 1))],
)
@pytest.mark.parametrize("cut", [1, 13, 40])
def test_a_stream_goes_on_with_the_very_next_batch_in_any_other_layout(mixed, whole, before, after, cut):
    take(first := processes(mixed._plan, *before), cut)
    for one in (second := processes(mixed._plan, *after)):
        one.load_state_dict(json.loads(json.dumps(together(first)), object_hook=numbered))  # nothing but plain data
    assert np.array_equal(take(second, 60 - cut), whole[cut:])


def numbered(pairs):
    return {int(key) if key.isdecimal() else key: value for key, value in pairs.items()}


def test_going_on_makes_again_no_more_than_the_blocks_that_were_cut(mixed, monkeypatch):
    """Else a resume would read all that came before."""
    take([first := stream(mixed._plan)], 50)
    state, made = first.state_dict(), Counter()
    fill = Lane._fill
    monkeypatch.setattr(Lane, "_fill", lambda lane: made.update([lane._number]) or fill(lane))
    (second := stream(mixed._plan)).load_state_dict(state)
    take([second], 1)
    assert 0 < max(made.values()) <= 2
    made.clear()
    take([stream(mixed._plan, first=50)], 1)
    assert min(made.values()) > 10


def test_a_training_behind_another_begins_where_that_one_ended(mixed, whole):
    assert np.array_equal(take([stream(mixed._plan, first=20)], 5), whole[20:25])
    data = mixed.behind(20)
    tokens = next(iter(data.train_dataloader())).tokens_BT.numpy()
    assert np.array_equal(tokens, whole[20][:, :-1])


def test_batches_are_like_those_of_prepared_tokens(mixed, whole):
    batch = next(iter(mixed.train_dataloader()))
    assert np.array_equal(batch.labels_BT.numpy(), whole[0][:, 1:])
    assert batch.domain == "train"
    assert batch.document_B.tolist() == [-1] * TOTAL
    assert len({*batch.sequence_B.tolist()}) == TOTAL
    text = [len(mixed.tokenizer.decode(row.tolist(), skip_special_tokens=True).encode()) for row in batch.labels_BT]
    assert batch.bytes_B.tolist() == text


def epoch_of(plan, source, epoch):
    """The texts of one epoch, lane by lane, in order."""
    reader = Reader(plan)
    texts = []
    for lane in range(plan.lanes):
        feed = takewhile(lambda fed: fed[0].epoch == epoch, reader.feed(source, lane, Place(epoch)))
        tokens = np.concatenate([tokens for _, tokens in feed])
        ends = np.flatnonzero(tokens == reader.end)
        assert ends[-1] == len(tokens) - 1  # nothing is left out
        texts += [
            reader._tokenizer.decode(part[part != reader.end].tolist()) for part in np.split(tokens, ends + 1)[:-1]
        ]
    return texts


@pytest.mark.parametrize("lanes", [1, 4, 7])
def test_each_document_is_read_once_an_epoch_in_ever_another_order(folder, tmp_path, lanes):
    plan = opened(settings(folder, lanes=lanes), tmp_path)._plan
    first, second = epoch_of(plan, 0, 0), epoch_of(plan, 0, 1)
    assert sorted(first) == sorted(second) == sorted(documents("a")[10:])  # ten of them are held out
    assert first != second


def test_without_shuffling_sequences_are_the_documents_one_behind_another(folder, tmp_path):
    plan = opened(settings(folder, lanes=1, shuffle=1), tmp_path)._plan
    tokens, reader = take([stream(plan)], 60).reshape(-1), Reader(plan)
    expected = []
    for epoch in range(9):
        for text in epoch_of(plan, 0, epoch):
            expected += [*reader._tokenizer.encode(text).ids, reader.end]
    assert tokens.tolist() == expected[: len(tokens)]
    assert len(expected) > len(tokens)


def test_the_order_is_of_seed_and_data_alone(folder, mixed, whole, tmp_path):
    shutil.copytree(folder, tmp_path / "elsewhere")
    mix = {"y": {"train": [f"{tmp_path}/elsewhere/a*.jsonl"], "weight": 0.6},
           "x": {"train": [f"{tmp_path}/elsewhere/b[12].jsonl"], "weight": 0.2}}  # fmt: skip
    changes = {"train": [], "mix": mix}
    same = opened(settings(tmp_path / "elsewhere", **changes), tmp_path / "cache")
    assert np.array_equal(take([stream(same._plan)], 10), whole[:10])
    assert same.digests == mixed.digests
    other = opened(settings(folder, seed=1, **changes), tmp_path / "cache")
    assert not np.array_equal(take([stream(other._plan)], 10), whole[:10])
    routers = mixed.shuffled(3, TOTAL).train_dataloader()
    assert not np.array_equal(next(iter(routers)).tokens_BT.numpy(), whole[0][:, :-1])


def test_what_a_backbone_is_known_by_depends_on_what_the_stream_does(folder, plain, tmp_path):
    shorter = tmp_path / "shorter"
    shutil.copytree(folder, shorter)
    lines = (shorter / "a2.jsonl").read_text().splitlines(keepends=True)
    (shorter / "a2.jsonl").write_text("".join(lines[:-1]))
    changes = [{"lanes": 5}, {"shuffle": 49}, {"seed": 1}, {"train": [f"{folder}/a[12].jsonl"]}]
    configs = [settings(folder, **change) for change in changes] + [settings(shorter), settings(folder, workers=2)]
    digests = [opened(config, tmp_path / "cache").digests for config in configs]
    assert digests[-1] == plain.digests
    assert len({*[digest.train for digest in digests], *[digest.whole for digest in digests]}) == 2 * len(digests)


@pytest.mark.parametrize("weights", [(3, 1), (0.01, 0.99), (1, 0), (0.5, 0.5)])
def test_shares_of_tokens_approach_the_weights(folder, tmp_path, weights):
    mix = {
        kind: {"train": [f"{folder}/{kind}[12].jsonl"], "weight": weight}
        for kind, weight in zip("ab", weights, strict=True)
    }
    data = opened(settings(folder, train=[], mix=mix), tmp_path)
    rows = take([stream(data._plan)], 120).reshape(-1, LENGTH)
    texts = [data.tokenizer.decode(row.tolist()) for row in rows]
    share = np.mean([text.count("a") > text.count("b") for text in texts])
    wanted = weights[0] / sum(weights)
    # a lane is at most a sequence off, and a block that is half given as much as it holds of a source
    assert abs(share - wanted) <= (4 * 2 + 48 * min(wanted, 1 - wanted)) / len(rows)


def test_held_out_documents_train_nothing(plain):
    texts = "".join(plain.tokenizer.decode(row.tolist()) for row in take([stream(plain._plan)], 60).reshape(-1, LENGTH))
    assert not [number for number in range(10) if f"<a{number}>" in texts]
    assert sum(f"<a{number}>" in texts for number in range(10, 60)) > 40


def test_tokens_prepared_once_are_the_same_stream_read_faster(folder, mixed, whole, tmp_path):
    config = settings(folder, train=[], mix=mixed.config.mix, prepare=True, workers=2)
    data = opened(config, tmp_path)
    files = sorted(data._plan.prepared.glob("*.npy"))
    assert len(files) == sum(len(source.units) for source in data._plan.sources)
    assert {np.load(file, mmap_mode="r").dtype for file in files} == {np.dtype(np.uint16)}
    assert np.array_equal(take(processes(data._plan, 2, 0), 60), whole)
    assert data.digests == mixed.digests
    take([before := stream(mixed._plan)], 13)
    (after := stream(data._plan, workers=2)).load_state_dict(before.state_dict())
    assert np.array_equal(take([after], 30), whole[13:43])


def test_preparing_goes_on_where_it_was_stopped_and_leaves_nothing_half_made(folder, tmp_path, monkeypatch):
    config, made = settings(folder, prepare=True), []

    def write(path, chunks, vocabulary):
        if len(made) == 3:
            next(iter(chunks))
            raise KeyboardInterrupt
        made.append(path)
        return write_shard(path, chunks, vocabulary)

    with monkeypatch.context() as patch:
        patch.setattr("duo.data.plan.write_shard", write)
        with pytest.raises(KeyboardInterrupt):
            opened(config, tmp_path)
    times = [path.stat().st_mtime_ns for path in made]
    data = opened(config, tmp_path)
    assert [path.stat().st_mtime_ns for path in made] == times
    assert len([*data._plan.prepared.iterdir()]) == len(data._plan.sources[0].units)


def test_a_prepared_shard_that_was_cut_short_is_named(folder, tmp_path):
    data = opened(settings(folder, prepare=True), tmp_path)
    path = max(data._plan.prepared.glob("*.npy"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=f"^the prepared shard {path} cannot be read: delete it") as error:
        take([stream(data._plan, workers=1)], 60)
    assert "\n" not in str(error.value)


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


def lines(texts, end="\n"):
    odd = [json.dumps({"text": text, "n": 3}) for text in texts]
    return ("\ufeff" + f"{end}{end}".join(odd)).encode()


def packed(path, texts):
    path.write_bytes(gzip.compress(lines(texts)))


def table(path, texts):
    rows = [text if number % 5 else None for number, text in enumerate(texts)]
    pq.write_table(pa.table({"n": [*range(len(rows))], "text": rows}), path, row_group_size=7)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 50])
@pytest.mark.parametrize("texts", [[], ["one"], ["é" * n for n in range(1, 30)], documents("a", 23)])
def test_pieces_of_a_shard_hold_each_document_once(tmp_path, texts, count):
    (tmp_path / "a.jsonl").write_bytes(lines(texts))
    (tmp_path / "b.jsonl").write_bytes(lines(texts, "\r\n") + b"\n")
    packed(tmp_path / "c.json.gz", texts)
    table(tmp_path / "d.parquet", texts)
    for name in "a.jsonl", "b.jsonl", "c.json.gz", "d.parquet":
        for shard in (tmp_path / name, str(tmp_path / name)) if name[0] in "abd" else (str(tmp_path / name),):
            whole = [*read_shard(shard, "data.train", "text")]
            assert len(whole) == len(texts if name[0] != "d" else [n for n in range(len(texts)) if n % 5])
            parts = [[*read_shard(shard, "data.train", "text", index, count)] for index in range(count)]
            if name[0] == "c":  # dealt one by one
                assert sorted(sum(parts, [])) == sorted(whole)
            else:
                assert sum(parts, []) == whole


def test_shards_are_cut_only_where_they_are_few():
    shards = [f"{number}.jsonl" for number in range(10)]
    assert {unit.of for unit in cut(shards, 2, "data.train")} == {1}
    units = cut(shards, 16, "data.train")
    assert {unit.of for unit in units} == {7}
    assert len({*units}) == len(units) == 70
    assert {unit.of for unit in cut(["a.txt", "b.txt", "c.jsonl"], 2, "data.train")} == {1, 6}


@pytest.mark.parametrize("kind", ["gz", "parquet"])
def test_a_packed_shard_cut_short_is_named(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(hub_module, "WAITS", (0.01,))
    path = tmp_path / ("a.jsonl.gz" if kind == "gz" else "a.parquet")
    (packed if kind == "gz" else table)(path, documents("a", 500))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"^data.train: shard {path} cannot be read"):
        [*read_shard(str(path), "data.train", "text")]
