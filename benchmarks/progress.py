"""What signs of life cost: a step that is told, and a line that is drawn, in processor time.

python benchmarks/progress.py
"""

from __future__ import annotations

import io
import logging
import time

from rich.console import Console

from duo.progress import at, count, watching
from duo.progress.shown import AGAIN, LOGGED, Line, Lines

STEPS, DRAWN = 200_000, 500


class Terminal(io.StringIO):
    """What says that it is a terminal."""

    def isatty(self) -> bool:
        """It does."""
        return True


class Running:
    """A clock that is a second further whenever it is looked at, so that everything is shown at once."""

    seconds = 0.0

    def __call__(self) -> float:
        """The next second."""
        self.seconds += LOGGED
        return self.seconds


def cost(watcher: Line | Lines | None, steps: int) -> float:
    """Seconds of the processor that a step takes."""
    with watching(watcher), at("evaluating softmax_budget, seed 0"), at("text"), count("batch", steps) as part:
        begun = time.process_time()
        for _ in range(steps):
            part.step()
        return (time.process_time() - begun) / steps


def main() -> None:
    """Prints them."""
    logging.getLogger("duo").setLevel(logging.INFO)
    logging.getLogger("duo").addHandler(logging.StreamHandler(io.StringIO()))
    console = Console(file=Terminal(), width=80, _environ={"TERM": "xterm"})
    plain, told = cost(None, STEPS), cost(Line(console), STEPS)
    drawn, logged = cost(Line(console, Running()), DRAWN), cost(Lines(Running()), DRAWN)
    print(f"a step that nobody watches {plain * 1e6:.2f} us, that a terminal watches {told * 1e6:.2f} us")
    print(f"a line drawn {drawn * 1e3:.2f} ms, every {AGAIN:g} s: {drawn / AGAIN:.2%} of the time")
    print(f"a line logged {logged * 1e3:.3f} ms, every {LOGGED:g} s: {logged / LOGGED:.4%} of the time")


if __name__ == "__main__":
    main()
