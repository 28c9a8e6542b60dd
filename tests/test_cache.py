"""The cache and a run's folder, where they cannot be written."""

import re
from pathlib import Path

import pytest

from duo.recipe import load
from duo.stages.cache import default_cache, hold, open_cache
from duo.stages.output import cache_of, hold_output


@pytest.mark.parametrize("place", ["{tmp}/file", "{tmp}/file/deeper", "/proc/nowhere", "{tmp}/binary", "{tmp}/folder"])
def test_a_cache_that_cannot_be_used_is_named_with_the_way_out(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "layout").write_bytes(b"\xff")
    (tmp_path / "folder" / "layout").mkdir(parents=True)
    folder = Path(place.replace("{tmp}", str(tmp_path)))
    with pytest.raises(ValueError, match=rf"^cache={re.escape(str(folder))} cannot be used: .+; give cache=DIR, .*$"):
        open_cache(folder)


def test_a_folder_of_the_cache_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "routers").write_text("in the way")
    with (
        pytest.raises(ValueError, match="routers/abc cannot be used: Not a directory; give cache=DIR"),
        hold(tmp_path / "routers" / "abc"),
    ):
        pass


def test_without_a_home_the_cache_must_be_given(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where HOME is not set and nobody knows the user
    with pytest.raises(ValueError, match="HOME is not set: give cache=DIR"):
        default_cache()
    assert cache_of(load("tiny", [f"cache={tmp_path}"]), tmp_path / "run") == tmp_path
    assert cache_of(load("tiny", ["cache=none"]), tmp_path / "run") == tmp_path / "run" / "cache"


def test_an_output_whose_lock_cannot_be_taken_is_named(tmp_path):
    recipe = load("tiny")
    with hold_output(recipe, "tiny", tmp_path / "run"):
        pass
    (tmp_path / "run" / ".lock").unlink()
    (tmp_path / "run" / ".lock").mkdir()
    with (
        pytest.raises(ValueError, match=r"run cannot be written: Is a directory; choose another folder"),
        hold_output(recipe, "tiny", tmp_path / "run"),
    ):
        pass


def test_whoever_holds_a_folder_removes_what_killed_writers_left_there(tmp_path):
    (tmp_path / ".backbone.safetensors.0123.part").write_text("half")
    (tmp_path / "backbone.safetensors").write_text("whole")
    with hold(tmp_path):
        assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == ["backbone.safetensors"]
