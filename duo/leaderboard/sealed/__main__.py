"""python -m duo.leaderboard.sealed route | train: the child, which works in the folder it is started in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from duo.leaderboard.sealed.protocol import BACKBONE, Answer, write_answer
from duo.progress import watching
from duo.progress.passed import Passing
from duo.storage.memory import end_quickly


def main(arguments: Sequence[str]) -> int:
    """Does the task; what a router's code raises is an answer, too."""
    folder, tasks = Path.cwd(), {"route": _route, "train": _train}
    if len(arguments) != 1 or arguments[0] not in tasks or not (folder / BACKBONE).exists():
        print(
            "python -m duo.leaderboard.sealed is started by submit and verify, in a folder of theirs", file=sys.stderr
        )
        return 2
    end_quickly()  # the parent waits
    try:
        with watching(Passing(folder)):
            tasks[arguments[0]](folder)
    except (ValueError, FloatingPointError) as error:
        write_answer(folder, Answer(failed=str(error)))
    return 0


def _route(folder: Path) -> None:
    from duo.leaderboard.sealed.routing import route

    route(folder)


def _train(folder: Path) -> None:
    from duo.leaderboard.sealed.training import train  # Lightning takes seconds, for which routing need not wait

    train(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
