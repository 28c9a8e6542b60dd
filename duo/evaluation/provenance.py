"""Where a result comes from."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("duo-llm", "torch", "lightning", "datasets", "tokenizers", "numpy")


def provenance(
    seed: int, device: torch.device, seconds: float, command: str, sources: dict[str, str]
) -> dict[str, Any]:
    """Where a result comes from; `sources` are the digests of its routers' source."""
    root = Path(__file__).parents[2]
    # --match= matches no tag: always the commit itself
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    in_checkout = (root / ".git").exists()  # else git answers for a repository that duo is installed in
    try:
        commit = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git
        commit = ""
    return {
        "commit": commit if in_checkout and commit else None,
        **environment(device),
        "seed": seed,
        "seconds": round(seconds, 1),
        "command": command,
        "sources": sources,
    }


def environment(device: torch.device) -> dict[str, Any]:
    """What numbers depend on beside the recipe: versions and device; where both are the same, they are exactly so."""
    return {
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        # instruction set and threads set the order of sums, and so the last digits
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}, "
        f"{torch.get_num_threads()} threads",
    }
