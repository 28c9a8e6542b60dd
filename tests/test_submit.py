"""What is submitted, and what is refused."""

import json
import re
import shutil

import pytest
from conftest import command

from duo.leaderboard.__main__ import main
from duo.leaderboard.board.tracks import build_board
from duo.storage.store import Store


def test_what_was_submitted_says_nothing_of_the_machine_it_ran_on(submitted, finished):
    for path in submitted.rglob("*"):
        if path.is_file():
            assert str(finished).encode() not in path.read_bytes()
            assert b"/root" not in path.read_bytes()
            assert b"/tmp" not in path.read_bytes()


def test_submitting_again_adds_nothing(submitted, finished, board, capsys):
    before = board.digests("entries")
    assert main(["submit", f"{finished}/run", f"leaderboard.store={board.location}", f"cache={finished}/cache"]) == 0
    assert board.digests("entries") == before
    assert "0 entries added" in capsys.readouterr().out


def test_rows_that_are_named_are_added_alone_and_a_name_that_is_none_is_told(finished, tmp_path, capsys):
    settings = [f"leaderboard.store={tmp_path}/new", f"cache={finished}/cache"]
    assert main(["submit", f"{finished}/run", "--rows", "fixed", *settings]) == 1
    assert (
        "no row fixed; its rows are softmax_budget, all_small, all_big, random, fixed_best" in capsys.readouterr().err
    )
    assert not Store(f"{tmp_path}/new").exists()
    assert main(["submit", f"{finished}/run", "--rows", "fixed_best", "all_small", *settings]) == 0
    store = Store(f"{tmp_path}/new")
    assert {store.head("entries", digest)["name"] for digest in store.digests("entries")} == {"fixed_best", "all_small"}


def test_a_dry_run_says_what_would_be_added_and_adds_nothing(finished, tmp_path, capsys):
    settings = [f"leaderboard.store={tmp_path}/new", f"cache={finished}/cache"]
    asked = ["submit", f"{finished}/run", "--row", "softmax_budget", "all_small"]
    assert main([*asked, "--dry-run", *settings]) == 0
    said = capsys.readouterr().out
    assert not Store(f"{tmp_path}/new").exists()
    assert "2 entries would be added, 0 refused" in said
    assert "nothing was written" in said
    assert said.count("would publish  the backbone") == 1
    kinds = ("tokens", "backbones", "entries")
    told = {kind: re.findall(f"would write  {kind}/(.{{12}}), [0-9].*(?:B|bytes)", said) for kind in kinds}
    assert main([*asked, *settings]) == 0
    store = Store(f"{tmp_path}/new")
    assert all(told[kind] == [digest[:12] for digest in store.digests(kind)] for kind in ("tokens", "backbones"))
    assert len(told["entries"]) == len(store.digests("entries")) == 2  # other digests: times differ
    capsys.readouterr()
    assert main([*asked, "--dry-run", *settings]) == 0
    assert "0 entries would be added, 0 refused, as they are there already" in capsys.readouterr().out


def test_a_backbone_gets_no_name_that_cannot_be_read(finished, tmp_path, capsys):
    settings = [f"leaderboard.store={tmp_path}/new", f"cache={finished}/cache"]
    assert main(["submit", f"{finished}/run", "--backbone", "my/<b>bone</b>", *settings]) == 1
    assert "cannot be called 'my/<b>bone</b>'" in capsys.readouterr().err
    assert not Store(f"{tmp_path}/new").exists()


@pytest.mark.parametrize("check", ["check_conformance", pytest.param("check_looking_ahead", marks=pytest.mark.long)])
def test_a_refused_row_publishes_nothing(finished, tmp_path, monkeypatch, check):
    def refuses(*_):
        raise ValueError("it looks ahead")

    monkeypatch.setattr(f"duo.leaderboard.submit.{check}", refuses)
    settings = [f"leaderboard.store={tmp_path}/new", f"cache={finished}/cache"]
    assert main(["submit", f"{finished}/run", *settings]) == 1
    assert not Store(f"{tmp_path}/new").exists()


def test_a_backbone_is_published_once_whatever_it_is_called(finished, board):
    settings = [f"leaderboard.store={board.location}", f"cache={finished}/cache"]
    assert main(["submit", f"{finished}/run", "--backbone", "mine", *settings]) == 0
    assert len(board.digests("backbones")) == 1


@pytest.mark.long
def test_what_is_submitted_elsewhere_takes_its_published_backbone_along(small, submitted, board, tmp_path, capsys):
    (published,) = board.digests("backbones")
    sizes = [argument for argument in small if not argument.startswith(("data.source", "data.train=", "data.hold"))]
    cache = f"cache={tmp_path}/cache"
    command(
        *sizes, f"leaderboard.backbone={published}", f"leaderboard.store={submitted}", f"output={tmp_path}/run", cache
    )
    other = Store(f"{tmp_path}/other")
    assert main(["submit", f"{tmp_path}/run", f"leaderboard.store={other.location}", cache]) == 0
    assert other.digests("backbones") == [published]
    assert other.digests("tokens") == board.digests("tokens")
    found = build_board(other)
    assert (len(found.tracks[0].lines), found.left_out) == (7, [])
    capsys.readouterr()
    assert main(["verify", found.tracks[0].lines[0].entries[0], f"leaderboard.store={other.location}"]) == 0


@pytest.mark.long
def test_a_run_that_is_not_finished_or_was_altered_is_refused(finished, tmp_path, board, capsys):
    folder = shutil.copytree(finished / "run", tmp_path / "run")
    settings = [f"leaderboard.store={tmp_path}/new", f"cache={finished}/cache"]
    result = json.loads((folder / "result.json").read_text())
    result["subset"]["router"]["held"]["loss"] = 1.0
    (folder / "result.json").write_text(json.dumps(result))
    main(["submit", str(folder), *settings])
    assert "its recipe gives" in capsys.readouterr().out
    (folder / "result.json").unlink()
    assert main(["submit", str(folder), *settings]) == 1
    assert "holds no finished run" in capsys.readouterr().err
    assert main(["submit", str(tmp_path), *settings]) == 1
