"""Accuracies on downstream tasks, as tables and as a figure (figure 8 of the paper, its accuracies)."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure
from rich.table import Table

from duo.evaluation.downstream import Accuracy, Downstream
from duo.report.canvas import new_panels
from duo.report.names import printable
from duo.report.numbers import new_table

SURE = 1.96  # standard errors in a 95 % interval


def task_tables(found: Downstream) -> Iterator[Table | str]:
    """A table for each task, and what failed."""
    for task, told in found.tasks.items():
        yield task_table(found, task, f"{told['questions']:,} questions, {told['shots']} examples each")
    for name, row in found.rows.items():
        if row.failed:
            yield f"failed  {printable(name)}: {printable(row.failed, 300)}"


def task_table(found: Downstream, task: str, where: str) -> Table:
    """Every row's accuracies with standard errors, and minus all big's, paired by question."""
    view = new_table(f"{printable(task)}: means, and minus all big (standard errors in brackets); {where}")
    view.add_column("", no_wrap=True)
    for metric in metrics_of(found, task):
        view.add_column(metric, justify="right", no_wrap=True)
        view.add_column("- all big", justify="right", no_wrap=True)
    for name, row in found.rows.items():
        if not row.failed:
            cells = [
                cell
                for metric in metrics_of(found, task)
                for cell in (_said(row.accuracy[task][metric]), _said(row.minus[task][metric], "+"))
            ]
            view.add_row(printable(name), *cells)
    return view


def metrics_of(found: Downstream, task: str) -> list[str]:
    """The metrics that a task has."""
    return [*next(row for row in found.rows.values() if not row.failed).accuracy[task]]


def draw_tasks(found: Downstream) -> Figure:
    """Accuracies of each task with 95 % intervals."""
    rows = {name: row for name, row in found.rows.items() if not row.failed}
    figure, axes = new_panels(1, len(found.tasks), 1 + 3.2 * len(found.tasks), 1.2 + 0.35 * len(rows))
    for place, (axis, task) in enumerate(zip(axes[0], found.tasks, strict=True)):
        metrics = metrics_of(found, task)
        for shift, metric in enumerate(metrics):
            means = [row.accuracy[task][metric] for row in rows.values()]
            at = [line + 0.6 * (shift + 0.5) / len(metrics) - 0.3 for line in range(len(rows))]
            spread = [SURE * (mean.error or 0) for mean in means]
            axis.errorbar([mean.value for mean in means], at, xerr=spread, fmt="o", markersize=4, label=metric)
        axis.set_yticks(range(len(rows)), [printable(name) for name in rows] if place == 0 else [""] * len(rows))
        axis.invert_yaxis()
        axis.set_title(printable(task))
        axis.set_xlabel("mean over questions, 95 % intervals")
        axis.legend(fontsize="small")
    return figure


def _said(mean: Accuracy, sign: str = "") -> str:
    """With three digits, so that two metrics and their differences stand side by side at 80 columns."""
    return f"{mean.value:{sign}.3f}" + ("" if mean.error is None else f" ({mean.error:.3f})")
