"""A run's numbers as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from msgspec import structs

from duo.backbone import MODULES
from duo.evaluation.comparison import Comparison
from duo.evaluation.downstream import Downstream
from duo.evaluation.format import load_struct
from duo.evaluation.intervals import Estimate
from duo.evaluation.result import Result
from duo.evaluation.score import Score, Scores, difference
from duo.recipe import Recipe
from duo.report.tables import COMPARED
from duo.stages.output import RECIPE, RESULT, read_result
from duo.stages.writer import load_run
from duo.storage.files import expand


def results(folder: str | Path) -> pd.DataFrame:
    """A finished run, or what `python -m duo.compare` wrote, as a table: a line for each row, hold-out and part of it.

    Columns: `group`, `row`, `holdout`, `part` (`full`, or the `subset` that searches are scored on), `seeds`, every
    number of `duo.evaluation.score.Score` (`loss` in nats a token, `flops_per_token`, ...), ends of intervals as
    `_low` and `_high`, the share of each module, and `minus_ROW`: the loss minus that of another row on the same
    tokens, paired.

    Raises:
        ValueError: the folder is none of a finished run, or of another version.
    """
    where = expand(str(folder))
    if (where / RESULT).exists() and not (where / RECIPE).exists():  # several runs have no recipe
        return table_of(load_struct(Comparison, where, RESULT))
    return table_of(read_run(where)[1])


def table_of(found: Result | Comparison) -> pd.DataFrame:
    """The same of what was read."""
    return pd.DataFrame([*_lines(found)])


def read_run(folder: Path) -> tuple[Recipe, Result | Comparison]:
    """A finished run's recipe and losses.

    Raises:
        ValueError: the folder is none of a finished run, holds none, or is of another version.
    """
    recipe = load_run(folder, [])
    if recipe.report.names:
        raise ValueError(f"{folder} holds a report: give the folder of one of its parts, {folder / 'parts'}/NAME")
    found = read_result(recipe, folder)
    if isinstance(found, Downstream):
        raise ValueError(f"{folder} holds accuracies on tasks, no losses: read its {RESULT}")
    return recipe, found


def _lines(result: Result | Comparison) -> Iterator[dict[str, Any]]:
    for group, part, rows, minus, seeds in _tables(result):
        for name, scores in rows.items():
            for holdout, score in scores.items():
                line = {"group": group, "row": name, "holdout": holdout, "part": part, "seeds": seeds.get(name, 1)}
                if isinstance(result, Comparison) and result.gap and part == "subset":
                    line |= _with_ends("gap_closed", result.groups[group][name].beside[holdout].gap_closed)
                line |= _numbers(score)
                for other in minus:
                    if holdout in rows.get(other, {}):
                        line |= _with_ends(f"minus_{other}", difference(score, rows[other][holdout]))
                yield line


def _tables(result: Result | Comparison) -> Iterator[tuple[str, str, dict[str, Scores], Sequence[str], dict[str, int]]]:
    """Group, part, scores by row and hold-out, the rows that are subtracted, and how many seeds rows have."""
    if isinstance(result, Result):
        for part, rows in (("full", result.full_rows()), ("subset", result.subset_rows())):
            yield "", part, rows, COMPARED, {}
        return
    for group, found in result.groups.items():
        seeds = {name: row.seeds for name, row in found.items()}
        for part, field in (("full", "scores"), ("subset", "subset")):
            yield group, part, {name: getattr(row, field) for name, row in found.items()}, result.minus, seeds


def _numbers(score: Score) -> dict[str, Any]:
    values = structs.asdict(score)
    loss, share = Estimate(score.loss, values.pop("loss_interval")), values.pop("share")
    return values | _with_ends("loss", loss) | {f"share_{name}": share[name] for name in MODULES}


def _with_ends(name: str, estimate: Estimate) -> dict[str, Any]:
    low, high = estimate.interval or (None, None)
    return {name: estimate.value, f"{name}_low": low, f"{name}_high": high}
