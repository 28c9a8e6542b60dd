"""A text as a page, by the command."""

import io
import json
import re
import sys

import pytest
from toy_texts import CODE

from duo.difficulty import main


def page_data(path):
    """What a page holds."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())[1])


@pytest.fixture
def read(small, finished, tmp_path, monkeypatch):
    """The command, on the finished run's backbone and router; its exit status."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: main([*small, f"cache={finished}/cache", *map(str, arguments)])


def test_the_command_writes_a_page_of_a_file(read, tmp_path, capsys):
    (tmp_path / "code.py").write_bytes(CODE.encode())
    assert read("code.py", "tokens=all") == 0
    assert capsys.readouterr().out.endswith("code.py.difficulty.html\n")
    data = page_data(tmp_path / "code.py.difficulty.html")
    assert "".join(data["texts"]) == CODE
    assert data["whole"]
    assert data["python"]
    assert data["about"] | {"backbone": "", "bytes": 0} == {
        "name": "code.py", "bytes": 0, "recipe": "tiny", "router": "softmax_budget", "backbone": "",
        "budget": {"skip": 0, "small": 1, "big": 1}, "context": 32, "search": None,
    }  # fmt: skip
    assert {sum(module == "2" for module in route) for route in data["oracle_route"][1:]} == {1}
    for column in ("small", "big", "oracle", "router", "gap", "rank", "front", "category", "seen"):
        assert len(data[column]) == len(data["texts"])
    before = (tmp_path / "code.py.difficulty.html").read_bytes()
    assert read("code.py", "tokens=all", "output=again.html") == 0
    assert (tmp_path / "again.html").read_bytes() == before


def test_the_command_reads_the_standard_input_and_says_what_it_leaves_out(read, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"word1 " * 500)))
    assert read("-", "tokens=40", "budget.skip=1", "output=new/page.html") == 0
    assert "its first 40 tokens alone are shown" in capsys.readouterr().out
    data = page_data(tmp_path / "new" / "page.html")
    assert (len(data["texts"]), data["whole"], data["about"]["bytes"]) == (40, False, 3000)
    assert {*"".join(data["oracle_route"][1:])} == {"0", "2"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"), (b"a\0b", "byte 1 is NUL"), (b"a\xff", "no text in UTF-8: byte 1"), (None, "No such file"),
        ("folder", "Is a directory"), (b"a", "has 1 token"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_told_in_one_line(read, tmp_path, capsys, content, said):
    if content == "folder":
        (tmp_path / "text").mkdir()
    elif content is not None:
        (tmp_path / "text").write_bytes(content)
    assert read("text") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: text ")
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "text.difficulty.html").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["text", "tokens=1"], 1, "tokens=1 must be a number from 2 on, or all"),
        (["text", "output=."], 1, "output=. is a folder"),
        (["text", "output=./text"], 1, "output=text is the text itself"),
        (["text", "recipe=compare_budget6"], 1, "compares rows"),
        (["text", "recipe=reproduce"], 1, "compares rows"),
        (["text", "cache=none"], 1, "cache=none"),
        (["text", "roter.name=random"], 1, "roter"),
        ([], 2, "Which file?"),
        (["text", "other"], 2, "Which file?"),
        (["--help"], 0, "leaderboard.backbone=DIGEST"),
    ],
)
def test_mistakes_name_the_way_out_and_leave_the_text_alone(tmp_path, monkeypatch, capsys, arguments, status, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("some words")
    assert main(arguments) == status
    assert said in "".join(capsys.readouterr())
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
    assert (tmp_path / "text").read_text() == "some words"
