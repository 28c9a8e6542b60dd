"""Several finished runs beside one another, as tables, sentences and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from matplotlib.figure import Figure
from rich.table import Table

from duo.backbone import Counts
from duo.evaluation.comparison import Comparison
from duo.evaluation.finished import Finished
from duo.evaluation.row import pair_scores
from duo.evaluation.several import pairs_of
from duo.report.canvas import error_bars, new_panels
from duo.report.marks import with_marks
from duo.report.names import printable
from duo.report.numbers import half, new_table, signed
from duo.report.rows import rows_by_loss
from duo.report.tables import parts_of

SAME = "each row minus that of its name in the first run that has one"


def render_several(
    runs: Sequence[Finished], comparison: Comparison, left_out: Sequence[str] = ()
) -> Iterator[Table | str]:
    """All that is said of a comparison of runs: which they are, how they differ, and tables of all rows.

    Args:
        left_out: groups that not all runs have.
    """
    yield from (_describe(run) for run in runs)
    yield from _warnings(runs)
    if left_out:
        yield f"Left out, for not all runs have them: {', '.join(printable(name, 120) for name in left_out)}."
    pairs = (table for holdout in comparison.holdouts if (table := pairs_table(comparison, holdout)).rows)
    yield from with_marks((*parts_of(comparison), *pairs))


def _describe(run: Finished) -> str:
    about = [f"{printable(run.recipe)}", f"{_some(_budgets(run))} layers", f"backbone {_some(_backbones(run))}"]
    return f"{run.label} = {printable(run.where, 120)}: {', '.join(about)}, seed {run.provenance.get('seed', 0)}"


def _budgets(run: Finished) -> list[str]:
    return [*dict.fromkeys(str(Counts(**row.budget)) for row in run.scored)]


def _backbones(run: Finished) -> list[str]:
    """How the digests of the backbones begin that its rows stand on."""
    return [*dict.fromkeys(row.digests["backbone"][:8] for row in run.scored)]


def _some(values: Sequence[str]) -> str:
    """One value, or the first and the last of several."""
    first, *others = values
    return first + (f"{' ...' * (len(others) > 1)} to {others[-1]}" if others else "")


def _warnings(runs: Sequence[Finished]) -> Iterator[str]:
    """Where runs differ in more than their routers."""
    if len({*map(tuple, map(_backbones, runs))}) > 1:
        yield (
            "The runs stand on different backbones: a difference between two of them is of backbone and router "
            "together. Gap closed is measured on each row's own backbone."
        )
    if len({*map(tuple, map(_budgets, runs))}) > 1:
        yield "The runs have different budgets: their losses are not of the same compute (MFLOPs)."


def pairs_table(comparison: Comparison, holdout: str) -> Table:
    """Rows that several runs have under one name, each minus that of the first of these runs, paired."""
    view = new_table(f"{printable(holdout)}: {SAME}")
    for column in ("", "minus", "difference", "loss", "loss of the other", "tokens"):
        view.add_column(column, justify="left" if column in ("", "minus") else "right", no_wrap=True)
    for group, name, other in _pairs(comparison, holdout):
        rows = comparison.groups[group]
        pair = pair_scores(rows[name], rows[other], holdout)
        losses = [f"{score.loss:.4f} {half(score.loss_interval)}" for score in pair]
        difference = signed(rows[name].beside[holdout].minus[other])
        view.add_row(_told(name, group), printable(other), difference, *losses, f"{pair[0].tokens:,}")
    return view


def _pairs(comparison: Comparison, holdout: str) -> list[tuple[str, str, str]]:
    """Group, row, and the row of its name in an earlier run."""
    return [(group, *pair) for group in comparison.groups for pair in pairs_of(comparison, group, holdout)]


def _told(name: str, group: str) -> str:
    return printable(name) + (f" at {printable(group, 120)}" if group else "")


def several_pictures(runs: Sequence[Finished], comparison: Comparison) -> Mapping[str, Callable[[], Figure]]:
    """What draws each figure, by file name."""
    drawn: dict[str, Callable[[], Figure]] = {"differences": partial(rows_by_loss, comparison)}
    if any(_pairs(comparison, holdout) for holdout in comparison.holdouts):
        drawn["same_rows"] = partial(draw_pairs, comparison)
    return {name: partial(_with_runs, runs, draw) for name, draw in drawn.items()}


def _with_runs(runs: Sequence[Finished], draw: Callable[[], Figure]) -> Figure:
    """A figure with what the runs are below it."""
    figure = draw()
    figure.supxlabel("    ".join(f"{run.label} = {printable(run.where)}" for run in runs), fontsize=8)
    return figure


def draw_pairs(comparison: Comparison) -> Figure:
    """Rows that several runs have, minus those of the first of them, with 95 % intervals; a panel a hold-out."""
    holdouts = comparison.holdouts
    most = max(len(_pairs(comparison, holdout)) for holdout in holdouts)
    figure, axes = new_panels(1, len(holdouts), 7 * len(holdouts), 1.4 + 0.3 * most)
    for axis, holdout in zip(axes[0], holdouts, strict=True):
        pairs = _pairs(comparison, holdout)[::-1]
        for place, (group, name, other) in enumerate(pairs):
            found = comparison.groups[group][name].beside[holdout].minus[other]
            axis.errorbar(found.value or 0.0, place, xerr=error_bars([found]), fmt="o", color="C0", capsize=3)
        labels = [f"{_told(name, group)} - {printable(other)}" for group, name, other in pairs]
        axis.set_yticks(range(len(pairs)), labels)
        axis.locator_params(axis="x", nbins=5)
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.grid(alpha=0.3)
        axis.set(title=printable(holdout), xlabel="difference in loss (nats per token)")
    return figure
