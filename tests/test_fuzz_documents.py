"""Whatever a file holds, it gives exactly its texts, or one line that says what is wrong."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duo.data.readers import READERS, read_documents

LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252", "shift_jis"]

NAMES = st.sampled_from(["text", "body", "text.a", "a", ""])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(NAMES, part, max_size=3))
ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=3) | st.fixed_dictionaries({"text": st.text()}), max_size=5)
SURROGATES = st.text(st.characters(categories=["Cs", "Ll"]), max_size=3)

PLAIN = [
    pa.null(), pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.date32(), pa.date64(),
    pa.time64("us"), pa.timestamp("ns"), pa.timestamp("s", "UTC"),
    pa.duration("ms"), pa.decimal128(9, 2), pa.decimal256(50, 3),
]  # fmt: skip
TEXT = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.binary(3),
]
FLAT = st.sampled_from(PLAIN + TEXT) | st.sampled_from(TEXT[:2]).map(lambda kind: pa.dictionary(pa.int16(), kind))
KINDS = st.recursive(
    FLAT,
    lambda kind: kind.map(pa.list_) | kind.map(pa.large_list) | kind.map(lambda inner: pa.list_(inner, 2))
    | kind.map(lambda inner: pa.struct([("a", inner)])) | kind.map(lambda inner: pa.map_(pa.string(), inner)),
    max_leaves=3,
)  # fmt: skip


def outcome(path, content):
    """The documents of a file, or None where it is refused as it should be."""
    path.write_bytes(content)
    try:
        return [*read_documents(path, "data.train", "text")]
    except ValueError as error:
        refused = error
    assert type(refused) is ValueError
    assert str(refused).startswith(f"data.train: {path} cannot be read: ")
    assert not {*LINE_ENDS} & {*str(refused)}
    return None


def is_text(value):
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_bytes(folder, suffix, content):
    found = outcome(folder / f"a{suffix}", content)
    if suffix == ".txt":
        text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")
        assert found == ([text.read()] if found is not None else None)
        assert (found is None) == (content.decode("utf-8", "replace").encode() != content)
    assert all(is_text(text) for text in found or [])


def check_rows(folder, rows, ascii_only, ends, encoding):
    lines = ends.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    try:
        content = lines.encode(encoding)
    except UnicodeEncodeError:
        return
    found = outcome(folder / "a.jsonl", content)
    rows = [json.loads(line) for line in lines.split(ends) if line]  # escaped halves of a pair are one character
    values = [row["text"] for row in rows if row.get("text") is not None]
    named = any("text" in row for row in rows) or not any(rows)
    good = named and all(isinstance(value, str) and is_text(value) for value in values)
    if encoding.startswith("utf-8"):
        assert found == (values if good else None)
    else:  # which may be UTF-8 all the same, of other characters
        assert all(is_text(text) for text in found or [])


def check_table(folder, kind, values, names, group):
    columns = [pa.array(values, kind), *(pa.array(["other"] * len(values)) for _ in names)]
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(pa.Table.from_arrays(columns, ["text", *names]), sink, row_group_size=group)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return  # what no parquet can hold
    found = outcome(folder / "a.parquet", sink.getvalue().to_pybytes())
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    known = [value for value in columns[0].to_pylist() if value is not None]
    if not values:
        assert found == []
    elif "text" in names or inner not in [*TEXT, pa.null()]:
        assert found is None
    else:
        data = [value if isinstance(value, bytes) else value.encode() for value in known]
        good = all(value.decode("utf-8", "replace").encode() == value for value in data)
        assert found == ([value.decode() for value in data] if good else None)


@st.composite
def tables(draw):
    """A type, values of it, names of further columns, rows of a group."""
    kind, size = draw(KINDS), draw(st.integers(0, 5))
    words = st.none() | st.binary(max_size=5) | st.text(max_size=5)
    found = []
    while len(found) < size:
        value = draw(words)
        try:
            pa.array([value], kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError, ValueError):
            value = None
        found.append(value)
    return kind, found, draw(st.lists(NAMES, max_size=2)), draw(st.integers(1, 3))


BYTES = st.tuples(st.sampled_from([*READERS]), st.binary(max_size=200) | st.text().map(str.encode))
LINES = st.tuples(
    st.lists(st.dictionaries(NAMES, VALUES | SURROGATES, max_size=3), max_size=5) | ROWS,
    st.booleans(), st.sampled_from(["\n", "\r\n", "\n\n"]), st.sampled_from(ENCODINGS),
)  # fmt: skip
BROKEN = st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=4))
CHECKS = {"bytes": (BYTES, check_bytes), "rows": (LINES, check_rows), "tables": (tables(), check_table)}


def run(name, folder, examples):
    cases, check = CHECKS[name]
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=quiet)
    @given(cases)
    def all_cases(case):
        check(folder, *case)

    all_cases()


@pytest.mark.parametrize("name", CHECKS)
def test_every_file_gives_its_texts_or_one_line(tmp_path, name):
    run(name, tmp_path, 40)


@pytest.mark.long
@pytest.mark.parametrize("name", CHECKS)
def test_thousands_of_files_give_their_texts_or_one_line(tmp_path, name):
    run(name, tmp_path, 3000)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(broken=BROKEN)
def test_a_file_with_bytes_altered_gives_texts_or_one_line(tmp_path, suffix, broken):
    rows, sink = [{"text": f"document {index}"} for index in range(20)], pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    content = lines if suffix == ".jsonl" else sink.getvalue().to_pybytes()
    place = broken[0] % len(content)
    found = outcome(tmp_path / f"a{suffix}", content[:place] + broken[1] + content[place + len(broken[1]) :])
    assert found is None or all(is_text(text) for text in found)


@pytest.mark.parametrize("opening", ["[", '{"text":', '{"a":['])
def test_deeply_nested_rows_are_refused(tmp_path, opening):
    assert outcome(tmp_path / "a.jsonl", opening.encode() * 100_000) is None
