"""data.source=hub: by name, config, split and column; streamed, cut, retried, and failing by the shard's name."""

import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_hub import COMMIT, hub

from duo.data import DataConfig, TextData
from duo.data import hub as module
from duo.data.hub import find_shards, read_shard

WORDS = "of the words that stand here some are told and others not"
CARD = """---
configs:
- config_name: small
  data_files:
  - split: train
    path: small/train-*.parquet
  - split: validation
    path: small/val.parquet
- config_name: lines
  data_files: lines.jsonl
- config_name: large
  data_files: large/*.parquet
---
"""


def text(number):
    return f"document {number} {WORDS} " * 12


def parquet(numbers, column="text"):
    file = io.BytesIO()
    pq.write_table(pa.table({column: [text(number) for number in numbers], "n": [*numbers]}), file, row_group_size=10)
    return file.getvalue()


def shards():
    lines = "\n".join(json.dumps({"text": text(number)}) for number in range(300, 305))
    return {
        "README.md": CARD.encode(),
        "small/train-00000-of-00002.parquet": parquet(range(40)),
        "small/train-00001-of-00002.parquet": parquet(range(40, 80)),
        "small/val.parquet": parquet(range(100, 130)),
        "lines.jsonl": lines.encode(),
        "large/a.parquet": parquet(range(200, 210), "content"),
    }


@pytest.fixture
def folder(tmp_path):
    for name, data in shards().items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "set"


def settings(name, **changes):
    asked = {
        "train": [f"{name}:small"], "holdouts": {"held": [f"{name}:small:validation"]}, "train_tokens": 640,
        "holdout_tokens": 320, "calibration_tokens": 64, "tokens": 16, "holdout_documents": 4,
    }  # fmt: skip
    return DataConfig(source="hub", **(asked | changes))


def prepared(config, tmp_path):
    data = TextData(config, 300, tmp_path / "cache")
    data.setup()
    return data


def test_a_data_set_is_had_by_name_config_split_and_column(folder):
    names = [os.path.basename(shard) for shard in find_shards(f"{folder}:small", "data.train")]
    assert names == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert [*map(os.path.basename, find_shards(f"{folder}:small:validation", "data.train"))] == ["val.parquet"]
    (lines,) = find_shards(f"{folder}:lines", "data.train")
    assert [*read_shard(lines, "data.train", "text")] == [text(number) for number in range(300, 305)]
    (large,) = find_shards(f"{folder}:large", "data.train")
    assert [*read_shard(large, "data.train", "content")] == [text(number) for number in range(200, 210)]
    for asked, said in (
        (f"{folder}:small:test", "has no split 'test' but train, validation"),
        (f"{folder}:none", "cannot be had .*none"),
        (f"{folder}:small:train:more", "is no data set: write NAME"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            find_shards(asked, "data.train")
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"data\.train: shard .*a\.parquet cannot be read: it has no column 'text'"):
        [*read_shard(large, "data.train", "text")]


def test_it_is_cut_to_the_tokens_that_are_asked_for(folder, tmp_path, monkeypatch):
    given = []
    whole = module.READERS[".parquet"]
    count = lambda *asked: (given.append(1) or each for each in whole(*asked))  # noqa: E731
    monkeypatch.setitem(module.READERS, ".parquet", count)
    data = prepared(settings(folder), tmp_path)
    assert len(data.packed()["train"]) == 640 // 16
    assert len(data.packed()["holdouts.held"]) == 320 // 16
    assert len(given) < 20  # of 80: what is not needed is not read
    ours = [*data.documents("holdouts.held")]
    assert len({*ours}) >= 4
    # the same split: its first documents are held out, and train nothing
    both = prepared(settings(folder, holdouts={"held": [f"{folder}:small"]}), tmp_path)
    held = {both.tokenizer.decode(row.tolist()).split()[1] for row in both.packed()["holdouts.held"]}
    assert both.digests != data.digests
    assert held


def test_settings_that_have_no_end_are_refused():
    for change, said in (
        ({"train_tokens": 0}, r"data\.train_tokens=0 must be at least 1 for source hub"),
        ({"holdout_tokens": 0}, r"data\.holdout_tokens=0 must be at least 1 for source hub"),
        ({"train": []}, r"data\.source=hub needs data\.train=\[NAME:CONFIG:SPLIT\]"),
    ):
        with pytest.raises(ValueError, match=said):
            settings("owner/name", **change)


def test_where_reading_breaks_off_it_goes_on_behind_the_last_document(folder, monkeypatch):
    monkeypatch.setattr(module, "WAITS", (0, 0))
    opened = []

    def breaking(file, column, piece):
        opened.append(1)
        for place, each in enumerate(whole(file, column, piece)):
            if place == 3 * len(opened) and len(opened) < 8:
                raise ConnectionError("the line is gone")
            yield each

    whole = module.READERS[".parquet"]
    monkeypatch.setitem(module.READERS, ".parquet", breaking)
    (shard, _) = find_shards(f"{folder}:small", "data.train")
    assert [*read_shard(shard, "data.train", "text")] == [text(number) for number in range(40)]
    assert len(opened) == 8  # more than there are tries, for each got further


def test_what_cannot_be_read_fails_by_the_shards_name(folder, monkeypatch):
    monkeypatch.setattr(module, "WAITS", (0, 0))

    def broken(file, column, piece):
        raise ConnectionError("the line\nis gone")
        yield

    monkeypatch.setitem(module.READERS, ".parquet", broken)
    shard = find_shards(f"{folder}:small", "data.train")[1]
    with pytest.raises(ValueError, match=r"data\.train: shard .*train-00001-of-00002\.parquet .* in 3 tries") as error:
        [*read_shard(shard, "data.train", "text")]
    assert "\n" not in str(error.value)


def remote(code, address, tmp_path):
    """Runs Python under another hub."""
    env = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    env.pop("HF_HUB_OFFLINE", None)
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.long
def test_a_server_gives_what_files_give(tmp_path):
    failed = []

    def fail(path, asked):  # the first try at one shard
        if path.endswith("00001-of-00002.parquet") and len(failed) < 1:
            failed.append(path)
            return True
        return False

    code = """
from duo.data import hub
hub.WAITS = (0, 0)
for asked, column in (("me/set:small", "text"), ("me/set:lines", "text"), ("me/set:large", "content")):
    for shard in hub.find_shards(asked, "data.train"):
        texts = [*hub.read_shard(shard, "data.train", column)]
        print(shard, len(texts), sum(map(len, texts)))
"""
    with hub("me/set", shards(), fail) as (address, asked):
        done = remote(code, address, tmp_path)
    assert done.returncode == 0, done.stderr
    places = [line.split() for line in done.stdout.splitlines()]
    sizes = [sum(len(text(number)) for number in numbers) for numbers in
             (range(40), range(40, 80), range(300, 305), range(200, 210))]  # fmt: skip
    assert [(int(count), int(size)) for _, count, size in places] == [*zip((40, 40, 5, 10), sizes, strict=True)]
    assert all(COMMIT in shard for shard, _, _ in places)  # of one revision, which never changes
    assert failed
    assert any(span for _, span in asked)
    code = code.replace('("me/set:small", "text"), ', "")
    with hub("me/set", shards(), lambda path, asked: path.endswith("jsonl")) as (address, _):
        done = remote(code, address, tmp_path)
    assert "lines.jsonl cannot be read in 3 tries" in done.stderr
