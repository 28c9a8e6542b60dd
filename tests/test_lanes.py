"""Training documents as a stream: its order, its mixture, and what it goes on with."""

import json
import shutil
from collections import Counter
from itertools import takewhile

import numpy as np
import pytest
from toy_streams import LENGTH, TOTAL, documents, opened, processes, settings, stream, take, write_shards

from duo.data.lanes import Lane, Place, Reader
from duo.data.shards import write_shard
from duo.data.stream import merge_states

LAYOUTS = [(1, 0), (1, 2), (2, 0), (2, 2), (3, 0), (4, 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


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
