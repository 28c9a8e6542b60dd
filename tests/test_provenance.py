"""Where results come from."""

import subprocess

import pytest
from conftest import ROOT

from duo.evaluation.provenance import commit


def git(folder, *arguments):
    who = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")
    subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"])
def test_the_commit_is_duos_own_whatever_repository_the_environment_names(tmp_path, monkeypatch, name):
    ours = commit()
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "another")
    place = {"GIT_WORK_TREE": tmp_path, "GIT_INDEX_FILE": tmp_path / ".git" / "index"}
    monkeypatch.setenv(name, str(place.get(name, tmp_path / ".git")))
    assert ours
    assert commit() == ours
