"""Runs the benchmarks one after another and writes what they print, and on what machine, to benchmarks/RESULTS.md.

    python benchmarks/results.py [--quick] [--only inference oracle ...] [--out FILE]

Each runs in a process of its own with one thread, whose processor time programs beside it disturb little; the main job
with as many threads as torch takes.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

from duo.evaluation.provenance import commit, environment

HERE = Path(__file__).parent
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
BENCHMARKS: dict[str, tuple[list[str], dict[str, str]]] = {
    "inference": ([], ONE_THREAD),
    "training": ([], ONE_THREAD),
    "oracle": ([], ONE_THREAD),
    "memory": ([], ONE_THREAD),
    "knobs": ([], ONE_THREAD),
    "main_job": (["--operators"], {}),
    "speculative": ([], ONE_THREAD),
    "approximate": ([], ONE_THREAD),
}
"""Script, its arguments, and what its environment adds."""


def processor() -> str:
    """The processor's model, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def load() -> str:
    """Programs that want a processor, of the last minute on average."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def machine() -> str:
    """What the numbers were measured on, and with."""
    about = environment(torch.device("cpu"))
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    day = datetime.datetime.now(tz=datetime.timezone.utc).date()
    return (
        f"{day}, commit {commit() or 'unknown'}. {os.cpu_count()} cores, {processor()}; {about['device']} unless said "
        f"otherwise; {platform.system()}; {versions}."
    )


def run(name: str, quick: bool, figure: Path) -> str:
    """What a benchmark prints, under its title and command, with the machine's load around it."""
    arguments, variables = BENCHMARKS[name]
    arguments = ["--quick"] if quick else arguments
    if name == "inference":
        arguments = [*arguments, "--figure", str(figure)]
    shown = [f"{key}={value}" for key, value in variables.items()] + ["python", f"benchmarks/{name}.py", *arguments]
    print(" ".join(shown), flush=True)
    before, begun = load(), datetime.datetime.now()
    done = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py"), *arguments],
        env=os.environ | variables, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"benchmarks/{name}.py ended with exit status {done.returncode}")
    seconds = (datetime.datetime.now() - begun).seconds
    said = f"{seconds} s; the machine's load was {before} before it and {load()} after"
    fence = "```"
    body = done.stdout.strip() if name == "main_job" else f"{fence}\n{done.stdout.strip()}\n{fence}"
    drawn = f"\n\n![Measured time against FLOPs]({figure.name})" if name == "inference" else ""
    return f"## {name}\n\n`{' '.join(shown)}` ({said})\n\n{body}{drawn}\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="each at its smallest, to see that it runs")
    parser.add_argument("--only", nargs="+", choices=[*BENCHMARKS], default=[*BENCHMARKS])
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md")
    options = parser.parse_args()
    head = f"# Benchmarks\n\nWritten by `make bench`. {machine()}\n"
    parts = [head]
    for name in options.only:
        parts.append(run(name, options.quick, options.out.with_name("time_flops.png")))
        options.out.write_text("\n".join(parts))  # each time: they take hours
