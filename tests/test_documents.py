"""Documents: what files hold, and how it is split."""

import datetime
import decimal
import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import split_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duo.data import DataConfig
from duo.data.readers import read_documents

ODD = [
    "2020-01-01",
    "2020-01-01T10:00:00Z",
    "12:30",
    "1.50",
    "007",
    "true",
    "null",
    "NaN",
    " a\r\nb ",
    "a\x00b",
    "é\U0001f600",
]


def of(folder, **changes):
    given = {"train": [f"{folder}/t*"], "holdouts": {"h": [f"{folder}/h*"]}, "tokens": 16}
    return DataConfig(source="files", **given | changes)


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(values, kind=None, **others):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": pa.array(values, kind), **others}), sink)
    return sink.getvalue().to_pybytes()


def texts(path, content, column="text"):
    path.write_bytes(content)
    return [*read_documents(path, "data.train", column)]


@pytest.mark.parametrize(
    "kind", [None, pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())]
)
def test_strings_are_those_of_the_file_whatever_they_look_like(tmp_path, kind):
    values = ODD if kind != pa.binary() else [text.encode() for text in ODD]
    assert texts(tmp_path / "a.parquet", parquet([*values, None], kind)) == ODD
    assert texts(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + jsonl([{"text": text, "n": None} for text in ODD])) == ODD


def test_rows_that_hold_nothing_are_no_documents(tmp_path):
    lines = b'{"text": "a", "n": NaN}\r\n\n  \n{"n": [1, {"text": 3}]}\n{"text": null}\n{"text": "b"}'
    assert texts(tmp_path / "a.jsonl", lines) == ["a", "b"]
    assert texts(tmp_path / "a.parquet", parquet([None, None])) == []
    assert texts(tmp_path / "a.parquet", parquet([], pa.int8())) == []
    assert texts(tmp_path / "a.txt", b"a\r\nb\rc\n") == ["a\nb\nc\n"]


DAY = datetime.date(2020, 1, 1)
MISTAKES = {
    "list.parquet": (parquet([["a"]], body=["b"]), "holds list<.*> and no text: set data.column .*, here body"),
    "struct.parquet": (parquet([{"a": "b"}]), "holds struct<a: string> and no text"),
    "number.parquet": (parquet([1.5]), "holds double and no text"),
    "day.parquet": (parquet([DAY]), "holds date32"),
    "decimal.parquet": (parquet([decimal.Decimal("1.5")]), "holds decimal128"),
    "bytes.parquet": (parquet([b"ok", b"caf\xe9"]), r"row 2: column 'text' is no UTF-8 at byte 3 \(0xe9\): convert"),
    "broken.parquet": (parquet(["a"]).replace(b"PAR1", b"PAR2"), "cannot be read"),
    "empty.parquet": (b"", "cannot be read"),
    "list.jsonl": (jsonl([{"text": "a"}, {"text": [], "body": "c"}]), "row 2: column 'text' holds a list .* body"),
    "number.jsonl": (jsonl([{"text": 1}]), "row 1: column 'text' holds a number"),
    "bool.jsonl": (jsonl([{"text": True}]), "holds a bool"),
    "object.jsonl": (jsonl([{"text": {"a": 1}}]), "holds an object"),
    "twice.jsonl": (b'{"text": "a", "text": "b"}', "row 1 has the column 'text' 2 times"),
    "array.jsonl": (b'[{"text": "a"}]', "row 1 is a list: give one object a line"),
    "broken.jsonl": (b'{"text": "a"}\n{"te\n{"text": "b"}\n', "row 2 is no JSON"),
    "deep.jsonl": (b'{"text": "a"}\n' + b"[" * 200_000, "row 2 nests too deep"),
    "digits.jsonl": (b'{"n": ' + b"1" * 5000 + b"}", "row 1 is no JSON"),
    "half.jsonl": (b'{"text": "a\\ud800"}', r"row 1: column 'text' holds \\ud800, half of a surrogate pair"),
    "latin.jsonl": (b'{"text": "caf\xe9"}', "row 1 is no UTF-8 at byte 13"),
    "column.jsonl": (jsonl([{"body": "a"}, {"title": "a"}]), "no column 'text' but body, title: set data.column"),
    "column.parquet": (parquet(["a"]).replace(b"text", b"body"), "no column 'text' but body: set data.column"),
    "latin.txt": (b"caf\xe9", r"it is no UTF-8 at byte 3 \(0xe9\): convert the file to UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_no_text_is_named_by_key_file_and_way_out(tmp_path, name):
    content, said = MISTAKES[name]
    with pytest.raises(ValueError, match=said) as caught:
        texts(tmp_path / name, content)
    assert str(caught.value).startswith(f"data.train: {tmp_path / name} cannot be read: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_files_are_found_by_their_own_names_and_folders_explained(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("t[1].txt", "h.txt", "sub/a.jsonl"):
        (tmp_path / name).write_bytes(jsonl([{"text": name}]))
    config = of(
        tmp_path, train=[f"{tmp_path}/t[1].txt", f"{tmp_path}/**/*.jsonl"], calibration={"c": [f"{tmp_path}/sub/*"]}
    )
    assert [json.loads(text) for text in split_of(config).train] == [{"text": "t[1].txt"}]
    (tmp_path / "t1.txt").write_text("the one of the glob")
    with pytest.raises(ValueError, match="is the name of a file, and a glob that matches .*t1.txt"):
        split_of(config)
    for folder in (f"{tmp_path}/sub", f"{tmp_path}/su*", f"{tmp_path}/sub/"):
        with pytest.raises(ValueError, match=r"data.train: .* is a folder, and no file: write .*/sub/\*.jsonl, or"):
            split_of(of(tmp_path, train=[folder]))
    with pytest.raises(ValueError, match=r"matches no file \(in a glob, \[\[\] stands for a bracket\)"):
        split_of(of(tmp_path, train=["/nowhere/[1]/*.txt"]))


def test_lists_that_are_empty_or_no_lists_are_named():
    for change, said in (
        ({"holdouts": {"x": []}}, r"data.holdouts.x=\[\] names no file"),
        ({"calibration": {"y": []}}, r"data.calibration.y=\[\] names no file"),
        ({"train": "my/*.txt"}, r"data.train=my/\*.txt is no list of globs: write data.train=\[my/\*.txt\]"),
        ({"holdouts": {"x": "a.txt"}}, r"write data.holdouts.x=\[a.txt\]"),
    ):
        with pytest.raises(ValueError, match=said):
            of("/nowhere", **change)


def test_a_file_without_documents_is_left_out_and_a_key_without_any_named(tmp_path):
    for name, content in {
        "t0.parquet": parquet([], pa.string()), "t1.parquet": parquet(["a b c " * 90]), "t2.txt": b" \n",
        "t3.jsonl": b"", "t4.txt": b"d e f " * 90, "h.txt": b"g",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    parts = split_of(of(tmp_path))
    assert len(parts.train) + len(parts.calibration["train"]) == 2
    with pytest.raises(
        ValueError, match=r"data.train holds no document: no text is in .*t0.parquet, .*t2.txt, .*t3.jsonl: "
    ):
        split_of(of(tmp_path, train=[f"{tmp_path}/t[023]*"]))


def reference(config, sets):
    """The split of lists of documents by key, in memory."""
    taken, parts = set(), {}
    for key in [key for key in sets if key != "train"] + ["train"]:
        found = {text for text in sets[key] if text.strip() and text not in taken}
        parts[key] = sorted(found, key=lambda text: hashlib.sha256(f"{config.seed}:{text}".encode()).digest())
        taken |= found
    train = parts.pop("train")
    sizes = np.cumsum([0, *(len(text.encode()) for text in train)])
    if not config.calibration:
        least = np.searchsorted(sizes, (config.tokens + 1) * 6)
        count = max(min(int(least), len(train)), -(-len(train) // 50))
        parts["calibration.train"], train = train[:count], train[count:]
        sizes = np.cumsum([0, *(len(text.encode()) for text in train)])
    if config.train_bytes:
        train = train[: min(int(np.searchsorted(sizes, config.train_bytes)), len(train))]
    return train, parts


DOCUMENTS = st.lists(st.sampled_from([f"{word} {'x' * size}" for word in "abcdef" for size in (0, 5, 90)] + [" ", ""]))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DOCUMENTS, DOCUMENTS, st.none() | DOCUMENTS, DOCUMENTS, st.integers(0, 3), st.sampled_from([0, 1, 50, 400]))
def test_documents_are_split_as_lists_in_memory_would_be(tmp_path, train, one, two, calibration, seed, least):
    sets = {"holdouts.one": one, "holdouts.two": two or ["other"], "calibration.c": calibration, "train": train}
    if two is None:  # 2 % of the training documents calibrate
        del sets["calibration.c"]
    for key, found in sets.items():
        (tmp_path / f"{key}.jsonl").write_bytes(jsonl([{"text": text} for text in found]))
    globs = lambda kind: {key[len(kind) :]: [f"{tmp_path}/{key}.jsonl"] for key in sets if key.startswith(kind)}  # noqa: E731
    config = DataConfig(
        source="files", train=[f"{tmp_path}/train.jsonl"], seed=seed, train_bytes=least, tokens=4,
        holdouts=globs("holdouts."), calibration=globs("calibration."),
    )  # fmt: skip
    wanted, parts = reference(config, sets)
    if not wanted or not all(parts.values()):
        with pytest.raises(ValueError, match=r"^data\.\S+ holds (no|too few) document"):
            split_of(config)
        return
    found = split_of(config)
    assert found.train == wanted
    assert found.holdouts == {key[9:]: documents for key, documents in parts.items() if key.startswith("holdouts.")}
    assert found.calibration == {
        key[12:]: documents for key, documents in parts.items() if key.startswith("calibration.")
    }
