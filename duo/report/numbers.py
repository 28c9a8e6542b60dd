"""Numbers with their intervals, and empty tables, as people read them."""

from __future__ import annotations

from rich import box
from rich.table import Table

from duo.evaluation.intervals import Estimate

Interval = tuple[float, float] | None


def new_table(title: str) -> Table:
    """A table without columns."""
    view = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    view.collapse_padding = True
    return view


def signed(estimate: Estimate) -> str:
    """A difference, and half its interval."""
    return f"{estimate.value:+.4f} {half(estimate.interval)}"


def share(estimate: Estimate) -> str:
    """A share in percent, and half its interval."""
    return "" if estimate.value is None else f"{estimate.value:.1%} {half(estimate.interval, 100)}%"


def times(part: float) -> str:
    """A part of a route's cost in percent; from ten times on, so many times.

    >>> times(0.034), times(380.45)
    ('3.4%', '380 x')
    """
    return f"{part:.1%}" if part < 10 else f"{part:,.0f} x"


def half(interval: Interval, scale: float = 1) -> str:
    """Half the width of an interval."""
    digits = 4 if scale == 1 else 1
    return "" if interval is None else f"±{(interval[1] - interval[0]) / 2 * scale:.{digits}f}"
