"""The repository and what is built of it stay light."""

import subprocess
import sys
import tarfile

import pytest
from conftest import ROOT
from sizes import MOST, too_large


def test_no_file_is_over_the_limit_but_the_listed_artefacts(monkeypatch):
    monkeypatch.chdir(ROOT)
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=False).stdout.split("\n")
    if listed == [""]:
        pytest.skip("not a checkout")
    assert too_large(filter(None, listed)) == []


def test_the_shipped_leaderboard_takes_at_most_40_megabytes():
    assert sum(path.stat().st_size for path in (ROOT / "leaderboard").rglob("*") if path.is_file()) <= 40 * MOST


def test_the_hook_refuses_a_large_file_and_names_it(tmp_path):
    (tmp_path / "large.bin").write_bytes(b"0" * (MOST + 1))
    (tmp_path / "small.bin").write_bytes(b"0" * MOST)
    artefact = tmp_path / "leaderboard" / "backbones" / "x"
    artefact.mkdir(parents=True)
    (artefact / "weights.safetensors").write_bytes(b"0" * (MOST + 1))
    files = ["large.bin", "small.bin", "leaderboard/backbones/x/weights.safetensors"]
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "sizes.py", *files], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "large.bin is larger than 1,000,000 bytes: leave it out, or list it in tests/sizes.py"
    ]


def test_the_source_distribution_leaves_the_leaderboard_out(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert not [name for name in names if name.startswith("leaderboard/")]
    assert {"duo/run.py", "recipes/tiny.yaml", "duo/leaderboard/page/index.html", "tests/old_recipes.json"} <= {*names}
    assert sdist.stat().st_size < 2 * MOST
