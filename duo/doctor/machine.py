"""What duo runs on: versions, processor, devices, memory, terminal."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator

import torch

from duo.doctor.finding import Finding
from duo.evaluation.provenance import PACKAGES, commit

SIGNS = "±µ°│╭→…"  # of tables, progress bars and messages


def versions() -> Iterator[Finding]:
    """Of Python, of duo with its commit, and of the packages that numbers depend on."""
    yield Finding("python", f"{platform.python_version()} in {sys.prefix}")
    yield Finding("commit", commit() or "none: not in a checkout, or no git")
    for name in PACKAGES:
        try:
            yield Finding(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "missing", f"package {name} is not installed: pip install {name}")


def machine() -> Iterator[Finding]:
    """Of the system, its processor and its memory."""
    yield Finding("platform", platform.platform())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("processors", f"{os.cpu_count()}, of which {usable} are this process's")
    pages = ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES")
    if {*pages} <= {*getattr(os, "sysconf_names", ())}:
        whole, free = (os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") / 2**30 for name in pages)
        yield Finding("memory", f"{whole:.1f} GiB, {free:.1f} GiB free")


def devices() -> Iterator[Finding]:
    """What torch computes on, and what Lightning chooses where a recipe says nothing."""
    capability = torch.backends.cpu.get_cpu_capability()
    yield Finding("cpu", f"{platform.machine()} {capability}, {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        yield Finding(
            f"cuda {index}",
            f"{found.name}, {found.total_memory / 2**30:.0f} GiB, capability {found.major}.{found.minor}",
        )
    if not torch.cuda.is_available():
        yield Finding("cuda", f"none (torch is built for {torch.version.cuda or 'no cuda'})")
    yield Finding("mps", "there" if torch.backends.mps.is_available() else "none")
    from duo.training.trainer import quieten, trainer_of  # Lightning takes seconds

    quieten()
    yield Finding("lightning takes", str(trainer_of({}).strategy.root_device))


def terminal(encoding: str | None) -> Iterator[Finding]:
    """Whether the output can show the signs of tables."""
    try:
        SIGNS.encode(encoding or "ascii")
        wrong = ""
    except (UnicodeEncodeError, LookupError):
        wrong = f"the output is in {encoding}, which lacks signs of the tables: set PYTHONIOENCODING=utf-8"
    yield Finding("encoding", str(encoding), wrong)
