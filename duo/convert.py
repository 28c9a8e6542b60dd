"""python -m duo.convert RUN DIR [--routed]: a finished run as a folder that transformers loads."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from duo.report.command import run_command
from duo.report.messages import messages, plain_console
from duo.storage.files import expand, making_folder

USAGE = "python -m duo.convert RUN DIR [--routed] [key=value ...]"
HELP = f"""{USAGE}

Writes a finished run (python -m duo.run) as a Hugging Face folder: config.json, model.safetensors, tokenizer.json.

  RUN          the folder of a finished run
  DIR          the folder to write, new or empty
  --routed     backbone, router and budget, as DuoForCausalLM, which AutoModelForCausalLM loads once duo is imported;
               without it the big FFNs alone, as a plain model (Llama, Qwen, OPT, ...) that needs no duo
  key=value    trainer.accelerator and other devices, as of python -m duo.run"""

log = logging.getLogger("duo.convert")  # not __name__, which is __main__


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status: 0 done, 1 a mistake, 2 no run or folder, 128 + N by signal N."""
    if {"--help", "-h"} & {*arguments}:
        print(HELP)
        return 0
    plain = [argument for argument in arguments if argument != "--routed"]
    folders, settings = plain[:2], plain[2:]
    if len(folders) != 2 or any(argument.startswith("-") for argument in plain) or not all("=" in s for s in settings):
        print(f"Which run, and where to? Type: {USAGE}\nMore: --help", file=sys.stderr)
        return 2

    def work() -> int:
        convert(expand(folders[0]), expand(folders[1]), "--routed" in arguments, settings)
        return 0

    return run_command(work)


def convert(run: Path, folder: Path, routed: bool, settings: Sequence[str] = ()) -> None:
    """Writes what a run's folder holds as a folder of transformers.

    Raises:
        ValueError: no finished run, a folder that holds something, or a backbone that no plain model is like.
    """
    from duo.stages.export import check_target, write_plain, write_routed  # Lightning takes seconds
    from duo.stages.single import check_single
    from duo.stages.writer import load_run, writer_of_run
    from duo.training.trainer import join_world, quieten

    recipe = load_run(run, settings)
    check_single(recipe, str(run))
    check_target(folder, routed)
    quieten()
    device = join_world(recipe.trainer)
    with messages(plain_console()):
        writer = writer_of_run(run, recipe, device)
        with making_folder(folder) as half_done:
            (write_routed if routed else write_plain)(half_done, recipe, writer)
        log.info("%s  %s", "routed" if routed else "all big", folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
