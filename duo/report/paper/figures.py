"""Which function draws which figure of the paper, from the rows of its table and from nothing else."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from duo.report.paper.draw_losses import draw_budgets, draw_rows, draw_trainings
from duo.report.paper.draw_routes import draw_mixtures, draw_sequences, draw_shares
from duo.report.paper.draw_tokens import draw_difficulty, draw_passage
from duo.report.paper.rows import Rows

DRAW: dict[str, Callable[[Rows], Figure]] = {
    "2": draw_shares, "3": draw_shares, "4a": draw_rows, "4b": draw_budgets, "4c": draw_rows, "5": draw_passage,
    "6": draw_difficulty, "7": draw_sequences, "8": draw_trainings, "9": draw_mixtures,
}  # fmt: skip
