"""Numbers with their intervals, and empty tables, as people read them."""

from __future__ import annotations

from rich import box
from rich.table import Table

from duo.evaluation.intervals import Estimate
from duo.evaluation.score import Score

Interval = tuple[float, float] | None
UNDERSPENT = 0.97  # of the budget's FLOPs: below, rows compare badly
UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


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


def to_budget(score: Score) -> str:
    """How far a row's FLOPs are from its budget's; `!` where it is not within it, `<` where it leaves much unspent."""
    spent = score.flops_per_token / score.budget_flops_per_token
    mark = "!" if not score.within_budget else "<" if spent < UNDERSPENT else " "
    return f"{spent - 1:+.1%}{mark}"


def size(numbers: int, bytes_held: int) -> str:
    """How many numbers a router holds, and their bytes.

    >>> size(0, 0), size(273, 1092), size(786432, 1572864)
    ('0', '273, 1.1kB', '786k, 1.6MB')
    """
    return f"{_short(numbers)}, {_short(bytes_held)}B" if numbers else "0"


def _short(number: float) -> str:
    unit = next(unit for unit in ("", "k", "M", "G") if number < 999.5 * UNITS[unit] or unit == "G")
    scaled = number / UNITS[unit]
    return f"{scaled:.0f}{unit}" if not unit or scaled >= 99.5 else f"{scaled:.2g}{unit}"


def time_of(ratio: float, unexplained: bool) -> str:
    """How many times all big's time, and a mark where it is more than the FLOPs explain.

    >>> time_of(1.234, False), time_of(30.2, True)
    ('1.23 x', '30.2 x?')
    """
    return f"{ratio:,.0f} x" + "?" * unexplained if ratio >= 999.5 else f"{ratio:.3g} x" + "?" * unexplained


def half(interval: Interval, scale: float = 1) -> str:
    """Half the width of an interval."""
    digits = 4 if scale == 1 else 1
    return "" if interval is None else f"±{(interval[1] - interval[0]) / 2 * scale:.{digits}f}"
