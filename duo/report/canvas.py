"""What figures are made on: panels, error bars, titles."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from duo.evaluation.intervals import Estimate
from duo.evaluation.row import describe_search

LARGEST = 100  # inches to a side: thousands of rows would ask for more memory than there is


def new_panels(lines: int, columns: int, width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    """A figure of so many inches and its axes, (lines, columns); not pyplot's, which keeps all that it ever made."""
    figure = Figure(figsize=(min(width, LARGEST), min(height, LARGEST)), layout="constrained")
    return figure, figure.subplots(lines, columns, squeeze=False, **options)


def error_bars(found: list[Estimate]) -> np.ndarray:
    """Lengths of error bars, (2, N): below and above."""
    bars = []
    for estimate in found:
        value = estimate.value or 0.0
        low, high = estimate.interval or (value, value)
        bars.append((max(value - low, 0), max(high - value, 0)))  # matplotlib refuses lengths below 0
    return np.array(bars).T


def search_line(searches: dict[str, str]) -> str:
    """A second line of a title, where a row was searched for among some routes alone."""
    return describe_search(searches).replace("; ", "\n", 1)
