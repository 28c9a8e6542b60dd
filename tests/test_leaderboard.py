"""The shared leaderboard, as submitters and readers use it."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import command
from forging import board_path, entry_of, forged, reseeded

from duo.backbone import BackboneConfig
from duo.leaderboard.__main__ import main
from duo.leaderboard.board.tracks import build_board
from duo.recipe import load as load_recipe
from duo.stages.publish import backbone_head
from duo.stages.published import fetch_backbone
from duo.storage.store import Store


def test_a_store_that_fails_while_it_is_read_gives_no_board(board, monkeypatch, capsys):
    def fails(*_, **__):
        raise TimeoutError("timed out")

    monkeypatch.setattr(type(board._files), "cat_file", fails)
    assert main(["show", "--format", "markdown", f"leaderboard.store={board.location}"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "cannot be read: timed out" in said.err


@pytest.mark.parametrize("format", ["table", "markdown", "csv", "json"])
def test_show_says_what_is_left_out_and_each_reason_once(board, format, capsys):
    (published,) = board.digests("backbones")
    path = board_path(board)
    (path / "backbones" / published / "backbone.json").unlink()
    (path / "entries" / entry_of(board)[0] / "recipe.yaml").write_text("changed")
    mark = board.add("marks", {"entry": "0" * 64, "level": "re-executed"}, {})
    assert main(["show", "--format", format, f"leaderboard.store={board.location}"]) == 0
    said = capsys.readouterr()
    told = said.out if format == "table" else said.err
    assert "8 left out\n" in told
    assert re.search(rf"6 times, of \w{{12}}, \w{{12}}, \w{{12}}, ...: backbones/{published[:12]}\S* is missing", told)
    assert "recipe.yaml was changed" in told
    assert f"mark {mark[:12]}: entry 000000000000, which it marks, is not here" in told


def test_all_means_all_that_are_finished(board, tmp_path, capsys):
    for digest in board.digests("entries"):
        (board_path(board) / "entries" / digest / "result.json").unlink()
    for store in (board.location, str(tmp_path)):
        assert main(["verify", "--all", f"leaderboard.store={store}"]) == 1
        assert "there are none yet" in capsys.readouterr().err
        assert main(["show", f"leaderboard.store={store}"]) == 0
        assert "no entry can be shown" in capsys.readouterr().out


def test_runs_that_fetch_one_backbone_at_the_same_time_all_get_it(board, tmp_path):
    (published,) = board.digests("backbones")
    head = backbone_head(board, published)
    config = BackboneConfig(**head.config)
    with ThreadPoolExecutor(8) as pool:
        folders = [*pool.map(lambda _: fetch_backbone(board, published, config, tmp_path)[0], range(24))]
    assert {*folders} == {tmp_path / "backbones" / published[:16]}


@pytest.mark.long
def test_a_published_backbone_gives_the_same_run_without_its_documents(small, finished, submitted, tmp_path):
    (published,) = Store(str(submitted)).digests("backbones")
    sizes = [argument for argument in small if not argument.startswith(("data.source", "data.train=", "data.hold"))]
    again = [f"leaderboard.backbone={published}", f"leaderboard.store={submitted}"]
    printed = command(*sizes, *again, f"output={tmp_path}/run", f"cache={tmp_path}/cache")
    assert "using the published backbone" in printed
    ours, theirs = (json.loads((folder / "run" / "result.json").read_text()) for folder in (finished, tmp_path))
    assert ours["backbone"]["digest"] == theirs["backbone"]["digest"]
    for part in ("scores", "baselines", "subset"):
        ours[part], theirs[part] = (json.dumps(result[part]) for result in (ours, theirs))
    drop = lambda text: [word for word in text.split(", ") if not re.search("seconds|time", word)]  # noqa: E731
    assert all(drop(ours[part]) == drop(theirs[part]) for part in ("scores", "baselines", "subset"))
    printed = command(*sizes, *again, "backbone.width=32", f"output={tmp_path}/b", f"cache={tmp_path}/cache", check=1)
    assert "has another shape than the recipe says: give backbone.width=16" in printed


def test_an_entry_says_what_it_is_made_of_in_80_columns(board, capsys):
    digest = entry_of(board)[0]
    other = forged(board, reseeded(7))
    board.add("marks", {"entry": digest, "level": "re-executed"}, {})
    assert main(["show", digest[:6], f"leaderboard.store={board.location}"]) == 0
    said = capsys.readouterr().out
    assert all(len(line) <= 80 for line in said.splitlines())
    (backbone,), (tokens,) = board.digests("backbones"), board.digests("tokens")
    score = build_board(board).tracks[0].lines[0].parts["held"].score
    for part in (
        digest, backbone, tokens, "softmax_budget, seed 0: deployable, re-executed", f"7 ({other[:8]}, ",
        "stage3.steps=8", "backbone.width=16", "data.tokens=32", f"{score.tokens:,}", "held, subset",
    ):  # fmt: skip
        assert part in said
    assert "skip_scope" not in said  # it is the default
    assert "leaderboard.backbone=" not in said.partition("made by")[0]


def test_a_recipe_takes_a_beginning_for_the_whole_digest(board, tmp_path):
    (published,) = board.digests("backbones")
    at = f"leaderboard.store={board.location}"
    whole, short = (load_recipe("tiny", [f"leaderboard.backbone={name}", at]) for name in (published, published[:4]))
    assert short == whole
    assert short.digest == whole.digest
    assert short.settings == whole.settings
    with pytest.raises(ValueError, match=rf"leaderboard.backbone=0{{9}}: 0 backbones begin .* is {published[:12]}"):
        load_recipe("tiny", ["leaderboard.backbone=000000000", at])
    with pytest.raises(ValueError, match="must be a digest: 64 digits from 0 to f, or its first 4 or more"):
        load_recipe("tiny", ["leaderboard.backbone=abc", at])


def test_mistakes_on_the_command_line_are_told_in_one_line(board, tmp_path, capsys):
    for arguments, said in (
        (["show", f"leaderboard.store={tmp_path}/nowhere"], "there is nothing at leaderboard.store"),
        (["verify", f"leaderboard.store={board.location}"], "which entry"),
        (["verify", "zzz", f"leaderboard.store={board.location}"], "0 entries begin with 'zzz'"),
        (["show", "--track", "zzz", f"leaderboard.store={board.location}"], "no track begins with 'zzz'; there are: "),
    ):
        assert main(arguments) == 1
        assert said in capsys.readouterr().err


def test_the_page_is_written_by_the_command(board, tmp_path, capsys):
    pytest.importorskip("plotly")
    assert main(["page", f"{tmp_path}/site", f"leaderboard.store={board.location}"]) == 0
    assert "softmax_budget" in (tmp_path / "site" / "index.html").read_text()
