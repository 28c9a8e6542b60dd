"""What the paper's figures share: colours and marks that can be told apart in grey, and grids."""

from __future__ import annotations

import numpy as np

from duo.report.paper.rows import LAYER, Rows

WIDTH = 6.8  # inches: letters stay readable where a telephone shows all of it
MODULE_COLORS = ("#e8e8e8", "#7fb3d5", "#9a2a2a")  # skip, small, big: light to dark, so that grey tells them apart
MARKS = ("o-", "s--", "^-.", "D:", "v-", "P--", "X-.")  # told apart without colour
COLORS = ("#1b1b1b", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito 2008


def to_grid(rows: Rows) -> np.ndarray:
    """The columns of layers by layer and position, (L, T)."""
    names = [name for name in rows[0] if name.startswith(LAYER)]
    return np.array([[row[name] for row in rows] for name in names])
