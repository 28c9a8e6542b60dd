"""Comparisons that are killed at random moments end as the unbroken one; see stress.py."""

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.long
def test_five_rounds_of_eight_processes_that_are_killed_at_random_end_as_the_unbroken_run(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "stress.py", tmp_path, "5", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_in_a_hundred_rounds_eight_processes_that_share_a_cache_lose_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "stress.py", tmp_path, "100", "0", "toys"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
