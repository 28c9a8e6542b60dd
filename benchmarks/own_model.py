"""Types the four commands of docs/models.md on a model, and shows what they print on a terminal of 80 columns.

    python benchmarks/own_model.py FOLDER TEXT OUT [key=value ...]

FOLDER is what `benchmarks/make_model.py` makes, with its tasks; TEXT is read by the difficulty page; runs, pages and
figures go to OUT. Settings stand behind every command, to make it shorter (`stage1.steps=100`).
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

COLUMNS = "80"


def commands(folder: Path, text: Path, out: Path) -> dict[str, list[str]]:
    """What is typed behind `python -m`, by what it is for."""
    model, tasks = f"backbone.pretrained={folder}", f"task_path={folder / 'tasks'}"
    page = f"output={out / 'difficulty.html'}"
    return {
        "in": ["duo.run", "recipe=pretrained", model, f"output={out / 'in'}"],
        "budget curve": ["duo.run", "recipe=pretrained_sweep", model, f"output={out / 'sweep'}"],
        "difficulty page": ["duo.difficulty", str(text), "recipe=pretrained", model, page],
        "accuracy": [
            "duo.run", "recipe=pretrained", model, "tasks=[continue_text,continue_code]", tasks,
            f"output={out / 'tasks'}",
        ],
    }  # fmt: skip


def main() -> int:
    """Runs them one after another; returns how many failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in "folder", "text", "out":
        parser.add_argument(name, type=Path)
    parser.add_argument("settings", nargs="*")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for what, words in commands(options.folder, options.text, options.out).items():
        typed = ["python", "-m", *words, *options.settings]
        print(f"## {what}\n\n    {shlex.join(typed)}\n", flush=True)
        start = time.perf_counter()
        done = subprocess.run([sys.executable, *typed[1:]], env=os.environ | {"COLUMNS": COLUMNS}, check=False)
        failed += done.returncode != 0
        print(f"\n({time.perf_counter() - start:.0f} s, exit status {done.returncode})\n", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
