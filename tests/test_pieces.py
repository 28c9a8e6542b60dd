"""Pieces of shards: each document in one of them, in order."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_streams import documents

from duo.data import hub as hub_module
from duo.data.hub import read_shard
from duo.data.units import cut


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
