"""A password in a location is used and never kept, shown or put into a command."""

import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import servers
import torch
from conftest import command
from hypothesis import given
from hypothesis import strategies as st

from duo.evaluation.provenance import provenance
from duo.leaderboard.__main__ import main
from duo.recipe import load
from duo.stages.output import hold_output
from duo.storage.location import shown, shown_command, shown_text
from duo.storage.shared import STORE, default_store, open_store, own_store
from duo.storage.store import Store, Unreachable

SECRETS = ["duo:secret", "duo:sec/ret", "duo:s@cret", "duo:secret word", "duo:\"secret'", ":secret", "secret"]


@pytest.fixture
def served(tmp_path):
    """A store on a server that asks for a password."""
    (tmp_path / "served").mkdir()
    with servers.ftp(tmp_path / "served") as location:
        yield location


@pytest.mark.parametrize("login", SECRETS)
def test_a_location_is_shown_without_its_login_and_query(login):
    assert shown(f"sftp://{login}@host:22/board") == "sftp://host:22/board"
    assert shown(f"leaderboard.store=sftp://{login}@host/board?token=secret") == "leaderboard.store=sftp://host/board"
    assert shown(f"simplecache::ftp://{login}@host/board") == "simplecache::ftp://host/board"
    said = f'python -m duo.run "leaderboard={{store: sftp://{login.replace(chr(34), "")}@host/b}}" seed=3'
    assert shown_command(said) == "python -m duo.run 'leaderboard={store: sftp://host/b}' seed=3"


@given(st.text(min_size=8).filter(lambda text: not re.match(r"\d+/", text)))
def test_whatever_a_password_is_made_of_it_is_not_shown(password):
    assert shown(f"sftp://duo:{password}@host/board") == "sftp://host/board"


KEEP = [
    "s3://bucket/user@x", "hf://datasets/me/board@main/x", "github://me:board@main/x", "ftp://host:21/a@b", "/a:b@c/d",
    "memory://x/a:b@c", "file:///a@b", "seed=3", "data.train=['s3://b/fil?.txt']", "C:\\a@b",
]  # fmt: skip


@pytest.mark.parametrize("location", KEEP)
def test_a_location_without_a_login_is_shown_as_it_is(location):
    assert shown(location) == shown_text(location) == location
    said = f"python -m duo.run   {location!r}"  # sign by sign, two spaces and all
    assert shown_command(said) == said


def test_a_runs_folder_and_its_result_hold_no_password_and_the_folder_stays_its_own(tmp_path):
    location = "sftp://duo:secret@host/board"
    recipe, folder = load("tiny", [f"leaderboard.store={location}"]), tmp_path / "run"
    for _ in range(2):
        with hold_output(recipe, "tiny", folder):
            text = (folder / "recipe.yaml").read_text()
    assert "store: sftp://host/board" in text
    assert "secret" not in text
    found = provenance(0, torch.device("cpu"), 1.0, f"python -m duo.run recipe=tiny leaderboard.store={location}", {})
    assert found["command"] == "python -m duo.run recipe=tiny leaderboard.store=sftp://host/board"


def test_what_a_driver_says_of_a_location_is_told_without_its_password(monkeypatch):
    store = Store(location := "memory://duo:se/cret@host")

    def fails(*_, **__):
        raise OSError(f"cannot read {location}/entries, nor ftp://duo:secret@host")

    monkeypatch.setattr(type(store._files), "ls", fails)
    with pytest.raises(Unreachable, match="cannot read memory://host/entries, nor ftp://host$"):
        store.digests("entries")


def test_children_of_verify_get_the_password_from_their_environment(served, monkeypatch, capsys):
    seen = []
    for number in range(2):
        Store(served).add("entries", {"number": number}, {})
    monkeypatch.setattr(
        subprocess, "run", lambda command, **options: seen.append((command, options)) or SimpleNamespace(returncode=0)
    )
    assert main(["verify", "--all", f"leaderboard.store={served}"]) == 0
    assert len(seen) == 2
    for arguments, options in seen:
        assert "secret" not in " ".join(arguments)
        assert options["env"][STORE] == served
    said = capsys.readouterr()
    assert "secret" not in said.out + said.err


def test_the_environment_names_the_store_or_gives_the_login_that_a_recipe_lacks(served, monkeypatch):
    monkeypatch.delenv(STORE, raising=False)
    assert default_store() == own_store()
    monkeypatch.setenv(STORE, served)
    assert default_store() == open_store().location == served
    assert open_store(shown(served)).location == served
    assert open_store("other").location == "other"
    assert open_store().add("entries", {}, {}) in Store(served).digests("entries")


@pytest.mark.long
def test_a_run_on_a_store_with_a_password_is_submitted_there_and_keeps_none(small, submitted, served, tmp_path, capsys):
    shutil.copytree(submitted, tmp_path / "served" / "board")
    (published,) = Store(served).digests("backbones")
    sizes = [argument for argument in small if not argument.startswith(("data.source", "data.train=", "data.hold"))]
    run = [*sizes, f"leaderboard.backbone={published}", f"leaderboard.store={served}", f"cache={tmp_path}/cache"]
    printed = command(*run, f"output={tmp_path}/run", "router.alpha=3.0")
    for path in (path for path in (tmp_path / "run").rglob("*") if path.is_file()):
        assert b"secret" not in path.read_bytes(), path
    assert json.loads((tmp_path / "run" / "result.json").read_text())["provenance"]["command"].count("ftp://127") == 1
    assert main(["submit", f"{tmp_path}/run", f"leaderboard.store={served}", f"cache={tmp_path}/cache"]) == 0
    said = capsys.readouterr()
    assert "1 entries added" in said.out
    assert "secret" not in printed + said.out + said.err
    assert all(b"secret" not in path.read_bytes() for path in (tmp_path / "served").rglob("*") if path.is_file())
