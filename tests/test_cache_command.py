"""`python -m duo.cache`: what is kept, and what goes."""

import os
import subprocess
import sys
import time
from datetime import timedelta

import pytest
from filelock import FileLock

from duo.cache import DAY, main
from duo.stages.cache import KINDS, open_cache


@pytest.fixture
def cache(tmp_path):
    """A cache of one folder a kind, of 1 to 5 kB, that were used 10, 20, ... 50 days ago."""
    folder = tmp_path / "cache"
    open_cache(folder)
    for number, kind in enumerate(KINDS, 1):
        keep(folder / kind / f"digest{number}", number * 1000, number * 10)
    return folder


def keep(folder, size, days):
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"x" * size)
    (folder / ".lock").touch()
    then = time.time() - timedelta(days=days).total_seconds()
    for path in (folder / "file", folder / ".lock"):
        os.utime(path, (then, then))


def run(capsys, *arguments, status=0):
    assert main([*map(str, arguments)]) == status
    said = capsys.readouterr()
    return said.out if status == 0 else said.err


def names(cache):
    return {path.name for kind in KINDS for path in (cache / kind).iterdir()}


def test_it_says_where_the_cache_is_and_nothing_else(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run(capsys, "where") == f"{tmp_path}/duo\n"


def test_it_lists_each_kind_and_each_folder_with_its_size_and_age(cache, capsys):
    whole = run(capsys, "list", "--cache", cache)
    for number, kind in enumerate(KINDS, 1):
        assert f"{kind} 1 {number}.0 kB" in " ".join(whole.split())
    keep(cache / "routers" / "newer", 10, 0)
    (cache / "routers" / "newer" / "last.ckpt").touch()
    one = [" ".join(line.split()) for line in run(capsys, "list", "routers", "--cache", cache).splitlines()]
    assert one.index("newer 10 bytes today half done") < one.index("digest3 3.0 kB 30 days ago")


@pytest.mark.parametrize("days", [0, 10.5, 25, 60])
def test_what_was_used_since_stays_and_the_rest_goes(cache, capsys, days):
    old = {f"digest{number}" for number in range(1, 6) if number * 10 >= days}
    said = run(capsys, "prune", "--days", days, "--cache", cache, "--dry-run")
    assert names(cache) == {f"digest{number}" for number in range(1, 6)}  # a dry run deletes nothing
    assert said.count("would delete") == len(old)
    said = run(capsys, "prune", "--days", days, "--cache", cache)
    assert names(cache) == {f"digest{number}" for number in range(1, 6)} - old
    assert said.endswith("are free\n")
    assert (cache / "layout").exists()


def test_one_kind_alone_may_go(cache, capsys):
    run(capsys, "prune", "--days", 0, "--kind", "rows", "--cache", cache)
    assert names(cache) == {f"digest{number}" for number in range(1, 6) if KINDS[number - 1] != "rows"}


def test_a_folder_that_was_read_of_late_stays(cache, capsys):
    path = cache / "rows" / "digest4" / "file"
    os.utime(path, (time.time() - DAY, path.stat().st_mtime))
    run(capsys, "prune", "--cache", cache)
    assert names(cache) == {"digest1", "digest2", "digest4"}


@pytest.mark.parametrize("lock", ["digest5/.lock", "digest5.lock"])
def test_a_folder_where_a_run_is_at_work_stays(cache, capsys, lock):
    with FileLock(cache / KINDS[4] / lock):
        os.utime(cache / KINDS[4] / "digest5" / ".lock", (0, 0))
        assert "digest5: a run is at work there, it stays" in run(capsys, "prune", "--cache", cache)
    assert "digest5" in {path.name for path in (cache / KINDS[4]).iterdir()}


def test_what_was_half_deleted_goes_with_the_next(cache, capsys):
    (cache / "rows" / "digest4").rename(cache / "rows" / "digest4.part")
    assert "half done" in run(capsys, "list", "rows", "--cache", cache)
    run(capsys, "prune", "--cache", cache)
    assert names(cache) == {"digest1", "digest2"}


def test_no_other_folder_is_touched(tmp_path, capsys):
    keep(tmp_path / "rows" / "mine", 10, 90)
    assert "holds no cache of duo's" in run(capsys, "prune", "--cache", tmp_path, status=1)
    assert "give 0, which is all, or more" in run(capsys, "prune", "--days", "-1", status=1)
    assert (tmp_path / "rows" / "mine" / "file").exists()


def test_shards_of_a_stream_are_folders_of_their_own_and_stay_while_they_are_made(cache, capsys):
    for name in ("old", "held", "new"):
        keep(cache / "data" / "shards" / name, 7, 1 if name == "new" else 90)
    with FileLock(cache / "data" / "shards" / "held.lock"):
        assert "held: a run is at work there" in run(capsys, "prune", "--kind", "data", "--cache", cache)
    assert {path.name for path in (cache / "data" / "shards").iterdir() if path.is_dir()} == {"held", "new"}
    assert "new 7 bytes 1 day ago" in " ".join(run(capsys, "list", "data", "--cache", cache).split())


def test_looking_into_the_cache_does_not_wait_for_lightning(cache):
    code = "import sys; from duo.cache import main; main(sys.argv[1:]); sys.exit('lightning' in sys.modules)"
    looked = subprocess.run([sys.executable, "-c", code, "list", "--cache", cache], capture_output=True, check=False)
    assert (looked.returncode, b"backbones" in looked.stdout) == (0, True)
