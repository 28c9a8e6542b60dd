"""Preparing tokens: in little memory, once, quietly, whole or not at all."""

import json
import os
import resource
import subprocess
import sys
import threading
import warnings
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from duo.data import DataConfig, TextData
from duo.data import prepare as module
from duo.data.prepare import prepare
from duo.data.token_text import token_bytes
from duo.data.tokenizer import END, pieces, train_tokenizer
from duo.data.tokens import Packed, digests_of, pack, read, write

TOKENIZER = train_tokenizer([f"some words, {END} among them <|end|> document"] * 3, 400)
WRITTEN = st.lists(st.sampled_from([END, "<|", "endofdocument", "|>", " ", "\n", "é", "a1"]) | st.text(max_size=9)).map(
    "".join
)
WORDS = st.lists(st.sampled_from(["some", " words", " document", " ", "\n", ","]), min_size=4).map("".join)


@pytest.fixture
def old(files):
    """A config of files that were last changed long ago."""
    for path in files.iterdir():
        os.utime(path, ns=(10**18, 10**18))
    return DataConfig(source="files", train=[f"{files}/train*"], holdouts={"held": [f"{files}/held*"]}, tokens=16)


@pytest.fixture
def read_files(monkeypatch):
    """The times that documents were read."""
    times = []
    whole = module.split
    monkeypatch.setattr(module, "split", lambda *given: times.append(1) or whole(*given))
    return times


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(WRITTEN, min_size=1, max_size=4))
def test_labels_hold_the_bytes_of_their_documents_even_where_those_spell_the_end(documents):
    stream = np.concatenate([*pack(TOKENIZER, documents, 1)])["id"]
    ends = np.flatnonzero(stream == TOKENIZER.token_to_id(END))
    assert len(ends) == len(documents)
    for text, part in zip(documents, np.split(stream, ends + 1), strict=False):
        assert token_bytes(TOKENIZER)[part].sum() == len(text.encode())
        assert TOKENIZER.decode(part[:-1].tolist()) == text


def test_prepared_documents_that_spell_the_end_are_whole(tmp_path):
    text = f"one {END} two{END} " * 40
    for name in ("t1", "t2", "h"):
        (tmp_path / f"{name}.txt").write_text(name + text)
    globs = {"train": [f"{tmp_path}/t*.txt"], "holdouts": {"h": [f"{tmp_path}/h.txt"]}}
    data = TextData(DataConfig(source="files", tokens=8, batch_size=999, **globs), 300, tmp_path / "cache")
    batch = data.holdout("h")[0]
    row = np.concatenate([batch.tokens_BT[0, :1], batch.labels_BT[0]])
    assert data.tokenizer.decode(row.tolist()) == f"h{text}"[: len(data.tokenizer.decode(row.tolist()))]
    assert data.tokenizer.encode(END).ids != [data.tokenizer.token_to_id(END)]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(WORDS | WRITTEN | st.text(st.sampled_from("a_é1漢 \n\t\r\x1c\x85\u2003'.")), st.integers(1, 9))
def test_a_document_in_pieces_has_the_tokens_of_the_whole(text, most):
    parts = [*pieces(text, most)]
    assert "".join(parts) == text
    assert [token for part in parts for token in TOKENIZER.encode(part).ids] == TOKENIZER.encode(text).ids
    assert max(map(len, pieces("words " * 99, most))) <= most + len(" words")


def test_digests_of_rows_that_are_written_are_those_of_arrays(files, old, tmp_path):
    tokenizer, splits, digests = read(prepare(old, 300, tmp_path))
    assert [*splits] == ["train", "holdouts.held", "calibration.train"]
    rows = {
        name: [Packed(np.array(row["tokens"], dtype=np.uint16), row["document"]) for row in split]
        for name, split in splits.items()
    }
    assert digests_of(tokenizer, rows) == digests
    rows["holdouts.held"][1] = rows["holdouts.held"][1]._replace(document=7)
    assert digests_of(tokenizer, rows) == digests._replace(whole=digests_of(tokenizer, rows).whole) != digests


def test_a_second_start_reads_no_document_unless_told_not_to_trust(old, tmp_path, read_files, monkeypatch):
    first = prepare(old, 300, tmp_path)
    assert prepare(old, 300, tmp_path) == first
    monkeypatch.chdir(tmp_path)
    assert prepare(DataConfig(**vars(old) | {"train": [os.path.relpath(old.train[0])]}), 300, tmp_path) == first
    assert len(read_files) == 1
    assert prepare(DataConfig(**vars(old) | {"trust": False}), 300, tmp_path) == first
    assert len(read_files) == 2
    assert not [*(tmp_path / "data").rglob("*.part")]


def test_documents_that_change_are_read_again(old, files, tmp_path, read_files):
    path = files / "train1.txt"
    text, first = path.read_text(), prepare(old, 300, tmp_path)
    try:
        path.write_text(text.replace("Document", "document"))  # of the same size
        assert prepare(old, 300, tmp_path) != first
        # changed a moment ago: if it changed again now, its time might be the same
        os.utime(path)
        prepare(old, 300, tmp_path)
        prepare(old, 300, tmp_path)
        assert len(read_files) == 4
    finally:
        path.write_text(text)


def test_a_document_that_changes_while_it_is_read_is_read_again(old, files, tmp_path, monkeypatch):
    path = files / "train1.txt"
    text, whole = path.read_text(), module.split

    def late(*given):
        found = whole(*given)
        path.write_text(text.replace("Document", "document"))
        return found

    try:
        with monkeypatch.context() as patch:
            patch.setattr(module, "split", late)
            first = prepare(old, 300, tmp_path)
        assert prepare(old, 300, tmp_path) != first
    finally:
        path.write_text(text)


def test_a_note_of_data_that_is_gone_is_not_trusted(old, tmp_path):
    first = prepare(old, 300, tmp_path)
    first.rename(tmp_path / "elsewhere")
    assert prepare(old, 300, tmp_path) == first
    assert read(first)[2] == read(tmp_path / "elsewhere")[2]


def test_what_a_killed_preparation_left_is_cleared_away(old, tmp_path):
    prepare(old, 300, tmp_path / "a")
    (note,) = [path for path in (tmp_path / "a" / "data" / "index").iterdir() if not path.suffix]
    left = tmp_path / "b" / "data" / "index" / f"{note.name}.part"
    left.mkdir(parents=True)
    (left / "documents").write_text("half")
    prepare(old, 300, tmp_path / "b")
    assert not left.exists()


def test_who_prepares_the_same_documents_waits_and_says_so(old, tmp_path, read_files, caplog):
    prepare(old, 300, tmp_path)
    (lock,) = (tmp_path / "data" / "index").glob("*.lock")
    with FileLock(lock):
        other = threading.Thread(target=prepare, args=(old, 300, tmp_path))
        other.start()
        other.join(0.3)
        assert other.is_alive()
    other.join()
    assert "waiting for another run that prepares the same documents" in caplog.text
    assert len(read_files) == 1


def test_no_library_says_anything(tmp_path, capfd):
    rows = [{"text": f"document {index} of {'words ' * 40}", "day": "2020-01-01"} for index in range(30)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    (tmp_path / "h.txt").write_text("held " * 40)
    globs = {"train": [f"{tmp_path}/t*"], "holdouts": {"h": [f"{tmp_path}/h*"]}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(DataConfig(source="files", tokens=16, **globs), 300, tmp_path / "cache")
    assert capfd.readouterr() == ("", "")


@contextmanager
def full_disk(room):
    """Files cannot grow beyond `room` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 22_000, 40_000])
def test_a_full_disk_is_said_in_one_line_and_leaves_nothing_that_is_trusted(old, tmp_path, room):
    with (
        full_disk(room),
        pytest.raises(OSError, match=r"/data/\S+('| cannot be written: .+)$") as caught,
    ):
        prepare(old, 300, tmp_path)
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "data" / "index").iterdir() if path.suffix != ".lock"]
    assert {path.suffix for path in (tmp_path / "data").iterdir()} <= {"", ".lock", ".part"}
    assert read(prepare(old, 300, tmp_path))[2] == read(prepare(old, 300, tmp_path / "other"))[2]
    assert not [*(tmp_path / "data").glob("*.part")]


@pytest.mark.parametrize("room", [0, 200, 5_000, 9_000])
def test_tokens_that_do_not_fit_are_said_in_one_line(tmp_path, room):
    with (
        full_disk(room),
        pytest.raises(OSError, match=rf"^\[Errno 27\] File too large: '{tmp_path}.*'$"),
    ):
        write(tmp_path, TOKENIZER, {"train": [Packed(np.zeros(17, dtype=np.uint16), -1)] * 999})


MEASURE = """
import re, sys
from pathlib import Path
from duo.data import DataConfig
from duo.data.prepare import prepare
globs = {"train": [sys.argv[1] + "/t.*"], "holdouts": {"h": [sys.argv[1] + "/h.txt"]}}
prepare(DataConfig(source="files", **globs), 400, Path(sys.argv[1], "cache"))
# not getrusage: it begins with the peak of the process that forked this one
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def peak(folder, suffix, megabytes):
    """MB that preparing a file of so many megabytes takes at its peak, in a process of its own."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    words = np.array([f"w{index}" for index in range(5000)])
    count = megabytes * 1_000_000 // 1800
    rows = [{"text": " ".join(words[draw.integers(0, 5000, 300)]) + f" {index}"} for index in range(count)]
    if suffix == "jsonl":
        (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), folder / "t.parquet")
    (folder / "h.txt").write_text("held out " * 400)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(folder)], stdout=-1, text=True, check=True)
    return int(done.stdout) / 1000


@pytest.mark.long
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_memory_does_not_grow_with_the_documents(tmp_path, suffix):
    small, large = (peak(tmp_path / str(size), suffix, size) for size in (6, 24))
    assert large - small < 25, f"{small:.0f} MB for 6 MB, {large:.0f} MB for 24 MB"
