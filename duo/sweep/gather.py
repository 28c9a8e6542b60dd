"""What a sweep's runs found, as the one comparison that they are parts of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs

from duo.evaluation.comparison import Comparison, compare_rows
from duo.evaluation.row import Row, average_rows
from duo.recipe import Recipe
from duo.stages.output import digest_sources
from duo.stages.score import describe_row
from duo.storage.location import shown_command
from duo.sweep.runs import SweepRun


def gather(
    whole: Recipe, name: str, command: str, runs: Sequence[SweepRun], found: Mapping[str, Comparison],
    failed: Mapping[str, str],
) -> Comparison:  # fmt: skip
    """The sweep's comparison; trains and scores nothing.

    Args:
        whole: the sweep's comparison.
        name: what it is called.
        command: what was typed.
        runs: all runs.
        found: what each run found, by name.
        failed: why a run found nothing, by name; its rows then have no scores, whatever their other seeds found.

    Raises:
        ValueError: every run failed.
    """
    if not found:
        raise ValueError(f"every run failed; the first one: {next(iter(failed.values()))}")
    some, compare = next(iter(found.values())), whole.compare
    groups = {}
    for group, rows in whole.groups.items():
        ours = [run for run in runs if run.group == group]
        merged = {row: _merge(row, recipe, ours, found, failed) for row, recipe in rows.items()}
        groups[group] = compare_rows(merged, compare.minus, compare.gap, compare.known_by, some.foreign)
    about = {
        "seed": whole.seed,
        "seconds": round(sum(part.provenance["seconds"] for part in found.values()), 1),  # of all runs together
        "command": shown_command(command),
        "sources": digest_sources(whole),
    }
    return Comparison(
        recipe=name,
        recipe_digest=whole.digest,
        groups=groups,
        minus=compare.minus,
        gap=compare.gap,
        foreign=some.foreign,
        provenance=some.provenance | about,
    )


def _merge(
    name: str, recipe: Recipe, runs: Sequence[SweepRun], found: Mapping[str, Comparison], failed: Mapping[str, str]
) -> Row:
    """One row of one group, averaged over the seeds that it has."""
    rows = []
    for run in runs:
        if name not in run.rows:
            continue
        if run.name in failed:
            return structs.replace(describe_row(recipe), failed=f"{run.name}: {failed[run.name]}")
        row = found[run.name].groups[run.group][name]
        if row.failed:
            return structs.replace(row, failed=f"{run.name}: {row.failed}", beside={})
        rows.append(structs.replace(row, beside={}))
    return average_rows(rows)
