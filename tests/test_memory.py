"""Freed memory stays with the process."""

import os
import platform
import subprocess
import sys

import pytest

from duo.storage.memory import CHOSEN

FAULTS = """
import resource, sys, torch
from duo.storage.memory import keep_freed_memory
print(keep_freed_memory())
def step():
    parts = [torch.ones(4 << 20) for _ in range(4)]
for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**chosen):
    """Whether memory is kept, and the pages that steps had to fetch again."""
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN} | chosen
    told = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True)
    kept, pages = told.stdout.split()
    return kept == "True", int(pages)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_step_fetches_few_of_the_pages_that_the_step_before_has_freed():
    kept, pages = faults()
    assert kept
    assert pages < 20 * 4096 / 4  # of 20 times 16 MiB


def test_what_somebody_has_chosen_by_the_environment_stays():
    kept, _ = faults(MALLOC_TRIM_THRESHOLD_="131072")
    assert not kept
