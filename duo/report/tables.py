"""Results and comparisons as tables and sentences for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from rich.cells import cell_len
from rich.table import Table

from duo.backbone import MODULES, Counts
from duo.evaluation.comparison import Comparison
from duo.evaluation.downstream import Downstream
from duo.evaluation.result import Result
from duo.evaluation.row import describe_search
from duo.evaluation.score import FEW_DOCUMENTS, Score, Scores, difference
from duo.report.accuracy import task_tables
from duo.report.ladder import CEILINGS, has_ladder, ladder_remark, ladder_table
from duo.report.marks import with_marks
from duo.report.names import name_part, printable
from duo.report.numbers import half, new_table, share, signed, size, time_of, times, to_budget

COMPARED = ("fixed_best", "random")  # the baselines that a run's rows are compared with
DETAILED = 3  # groups at most, for each of which a table is shown


def render(result: Result | Comparison | Downstream) -> Iterator[Table | str]:
    """All that is said of a result or a comparison, in order."""
    return with_marks(parts_of(result))


def parts_of(result: Result | Comparison | Downstream) -> Iterator[Table | str]:
    """The tables of a result or a comparison, and what is said besides."""
    if isinstance(result, Downstream):
        return task_tables(result)
    return _of_result(result) if isinstance(result, Result) else _of_comparison(result)


def _of_result(result: Result) -> Iterator[Table | str]:
    holdouts = [*result.gap_closed]
    for subset in (False, True):
        yield from (table(result, holdout, subset) for holdout in holdouts)
    yield from (gap_line(result, holdout) for holdout in holdouts)
    yield from _marked(result.full_rows() | result.subset_rows())
    yield from _collapses(result.router, result.collapsed)


def _of_comparison(comparison: Comparison) -> Iterator[Table | str]:
    groups = [*comparison.groups]
    for holdout in comparison.holdouts:
        if len(groups) > 1:
            yield across(comparison, holdout)
        for group in groups if len(groups) <= DETAILED else []:
            for subset in (False, True) if comparison.searched else (False,):
                if comparison.scored(group, holdout, subset):
                    yield comparison_table(comparison, group, holdout, subset)
            if has_ladder(comparison):
                yield ladder_table(comparison, group, holdout)
                yield ladder_remark(comparison, group, holdout)
    if has_ladder(comparison):
        yield CEILINGS
    yield from remarks(comparison)


def table(result: Result, holdout: str, subset: bool = False) -> Table:
    """One hold-out's rows, each compared with the best fixed pattern and with random routes on the same tokens.

    Behind each mean stands half the width of its 95 % interval, over documents.
    """
    rows = {name: row[holdout] for name, row in (result.subset_rows() if subset else result.full_rows()).items()}
    budget = f"{Counts(**result.budget)} layers a token"
    columns = (*(f"minus {name}" for name in COMPARED), "perplexity", "bits/byte", *COSTS)
    search = describe_search({name: how for name, how in result.searches.items() if name in rows})
    view = _view(f"{printable(holdout)}: {budget}; {_where(rows['random'], subset)}{search}", columns, subset)
    for name, score in rows.items():
        bits = "" if score.bits_per_byte is None else f"{score.bits_per_byte:.3f}"
        perplexity = "" if score.perplexity is None else f"{score.perplexity:.1f}"
        minus = [signed(difference(score, rows[other])) for other in COMPARED]
        cells = [printable(name), _loss(score), *minus, perplexity, bits, *_costs(score), *_promise(score, subset)]
        view.add_row(*cells)
    return view


def comparison_table(comparison: Comparison, group: str, holdout: str, subset: bool = False) -> Table:
    """One group's rows on one hold-out by loss, bounds apart, each minus the rows that it is compared with."""
    scores, rows = comparison.scored(group, holdout, subset), comparison.groups[group]
    minus = [name for name in comparison.minus if name in scores]
    first = next(iter(scores.values()))
    columns = (
        *(_minus(printable(name)) for name in minus),
        *COSTS,
        "passes",
        "seeds",
        *(["gap closed"] if comparison.gap else []),
    )
    title = f"{name_part(holdout, group)}: {_where(first, subset)}"
    title += describe_search({name: how for name, how in comparison.searches(group).items() if name in scores})
    view = _view(title, columns, subset)
    for bound in (False, True):
        for name, score in scores.items():
            if rows[name].bound is bound:
                differences = [signed(difference(score, scores[other])) for other in minus]
                closed = [share(rows[name].beside[holdout].gap_closed)] if comparison.gap else []
                cells = [
                    printable(name),
                    _loss(score),
                    *differences,
                    *_costs(score),
                    f"{score.passes:.4g}",
                    str(rows[name].seeds),
                ]
                view.add_row(*cells, *closed, *_promise(score, subset))
        view.add_section()
    return view


def _minus(name: str) -> str:
    """A column's head, on two lines where it would be wider than its numbers."""
    return ("minus " if cell_len(name) <= 10 else "minus\n") + name


def across(comparison: Comparison, holdout: str) -> Table:
    """Loss of every row in every group, and below it the paired difference to the row's last group.

    `*` marks a row's lowest loss, `=` those whose paired 95 % interval to it reaches 0.
    """
    groups, subset = [*comparison.groups], comparison.searched
    scores = {group: comparison.scored(group, holdout, subset) for group in groups}
    names = dict.fromkeys(name for group in groups for name in scores[group])
    some = next(score for group in groups for score in scores[group].values())
    where = _where(some, subset) + describe_search(comparison.searches())
    view = new_table(f"{printable(holdout)}: loss, and minus the last line; {where}")
    view.add_column("", no_wrap=True)
    for name in names:
        view.add_column(printable(name), justify="right", no_wrap=True)
    for group in groups:
        cells = []
        for name in names:
            column = [scores[other][name] for other in groups if name in scores[other]]
            score = scores[group].get(name)
            cells.append("failed" if score is None else _across(score, column))
        view.add_row(printable(group, 120), *cells)
    return view


def _across(score: Score, column: list[Score]) -> str:
    lowest = min(column, key=lambda other: other.loss)
    low, _ = difference(score, lowest).interval or (np.inf, np.inf)  # without an interval nothing is called equal
    mark = "*" if score is lowest else "=" if low <= 0 else " "
    return f"{score.loss:.4f}{mark} {signed(difference(score, column[-1]))}"


def gap_line(result: Result, holdout: str) -> str:
    """The gap closed on one hold-out, in words."""
    closed = result.gap_closed[holdout]
    if closed.value is None or closed.interval is None:
        documents = next(iter(result.subset.values()))[holdout].documents
        why = f"over {documents} documents it is not clearly there" if documents > 1 else "one document cannot tell"
        return f"{printable(holdout)}: nothing is said of a gap between the best fixed pattern and the oracle: {why}"
    (low, high), begin = closed.interval, result.gap_from[holdout]
    how_much = f"{closed.value:.1%} [{low:.1%}, {high:.1%}]"
    said = f"{printable(holdout)}: {result.router} closes {how_much} of the gap from {begin} to the oracle"
    return f"{said} ({FOREIGN})" if holdout in result.foreign else said


FOREIGN = "no calibration set has its name, so the best fixed pattern was chosen on others"


def remarks(comparison: Comparison) -> Iterator[str]:
    """Hold-outs whose gap may begin elsewhere, rows that failed, and routers that collapsed at a layer."""
    for holdout in comparison.foreign if comparison.gap else []:
        begins = {row.beside[holdout].gap_from for row in comparison.rows if not row.failed} - {""}
        yield f"{printable(holdout)}: gap closed is measured from {', '.join(sorted(begins))} ({FOREIGN})"
    for group, rows in comparison.groups.items():
        where = f" at {printable(group, 120)}" if group else ""
        for name, row in rows.items():
            if row.failed:
                yield f"{printable(name)}{where} failed: {printable(row.failed, 2000)}"
            yield from _marked({f"{name}{where}": row.shown})
            yield from _collapses(f"{printable(name)}{where}", row.collapsed)


def _marked(rows: Mapping[str, Scores]) -> Iterator[str]:
    """Rows whose time their FLOPs cannot explain."""
    return (
        f"{printable(name)}, {printable(holdout)}: deciding takes longer than its FLOPs can explain, so it does "
        "something that is not counted: its router FLOPs are not what it costs"
        for name, scores in rows.items()
        for holdout, score in scores.items()
        if score.unexplained_time
    )


def _collapses(who: str, collapsed: dict[str, list[str]]) -> Iterator[str]:
    for holdout, collapses in collapsed.items():
        layers: dict[str, list[int]] = {}
        for collapse in collapses:
            _, layer, what = collapse.split(" ", 2)  # "layer 3 always uses big"
            layers.setdefault(what, []).append(int(layer))
        said = [f"{what} at layer {', '.join(map(str, sorted(found)))}" for what, found in layers.items()]
        if said:
            yield f"{who}, {printable(holdout)}: {'; '.join(said)}"


COSTS = ("skip/small/big", "MFLOPs", "to budget", "router FLOPs", "router size", "time")


def _view(title: str, columns: tuple[str, ...], subset: bool) -> Table:
    view = new_table(title)
    for name in ("", "loss", *columns, *(["promised"] if subset else [])):
        view.add_column(name, justify="right" if name else "left", no_wrap=True)
    return view


def _loss(score: Score) -> str:
    return f"{score.loss:.4f} {half(score.loss_interval)}"


def _costs(score: Score) -> list[str]:
    """The values of COSTS."""
    return [
        "/".join(f"{score.share[name]:.2f}" for name in MODULES),
        f"{score.flops_per_token / 1e6:.3f}",
        to_budget(score),
        times(score.router_flops_per_token / score.flops_per_token),
        size(score.router_parameters, score.router_bytes),
        time_of(score.time_ratio, score.unexplained_time),
    ]


def _promise(score: Score, subset: bool) -> list[str]:
    """What a search promised, in a column that only tables of the subset have."""
    if not subset:
        return []
    return ["" if score.promised_loss is None else f"{score.promised_loss:.4f}"]


def _where(score: Score, subset: bool) -> str:
    where = "the subset of searches" if subset else "full hold-out"
    few = ": so few that intervals are guesses" if score.documents < FEW_DOCUMENTS else ""
    return f"{where}, {score.tokens:,} tokens, {score.documents} document{'s' * (score.documents > 1)}{few}"
