"""Where a result comes from."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from duo.storage.location import shown_command

PACKAGES = ("duo-llm", "torch", "lightning", "datasets", "tokenizers", "numpy")
# of git's environment: what it may run and read, and not which repository it looks at
KEPT = ("GIT_EXEC_PATH", "GIT_CONFIG_")


def provenance(
    seed: int, device: torch.device, seconds: float, command: str, sources: dict[str, str]
) -> dict[str, Any]:
    """Where a result comes from, without secrets; `sources` are the digests of its routers' source."""
    return {
        "commit": commit(),
        **environment(device),
        "seed": seed,
        "seconds": round(seconds, 1),
        "command": shown_command(command),
        "sources": sources,
    }


def commit() -> str | None:
    """The commit that duo runs from, with `-dirty` behind it where files were changed; none outside a checkout."""
    root = Path(__file__).parents[2]
    # --match= matches no tag: always the commit itself
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    if not (root / ".git").exists():  # git would answer for a repository that duo is installed in
        return None
    # a hook of another repository sets GIT_DIR, which counts for more than the folder
    ours = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key.startswith(KEPT)}
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=False, env=ours).stdout.strip() or None
    except OSError:  # no git
        return None


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
