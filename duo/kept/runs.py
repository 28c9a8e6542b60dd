"""Finished runs and entries of a leaderboard, as rows that may be compared."""

from __future__ import annotations

from pathlib import Path

from msgspec import UNSET, structs

from duo.evaluation.comparison import Comparison
from duo.evaluation.finished import Finished
from duo.evaluation.result import Result
from duo.evaluation.row import Row
from duo.kept.results import read_run
from duo.leaderboard.board.gains import BASELINES, find_baselines
from duo.leaderboard.entry.entry import Entry, read
from duo.recipe import Recipe
from duo.recipe.first import flatten
from duo.report.tables import COMPARED
from duo.routing.router import learns
from duo.stages.score import baseline_recipes, describe_row
from duo.storage.files import expand
from duo.storage.shared import BEGINNING, LEAST, find, open_store

NEVER = {"data.batch_size", "data.eval_batch_size", "data.workers", "data.trust", "data.prepare"}
"""Settings of data that move no token."""


def open_finished(what: str, label: str, store: str | None = None) -> Finished:
    """A finished run's folder, or an entry by the beginning of its digest.

    Args:
        label: what tells its rows from those of the same name elsewhere.
        store: where entries are looked up; default: the leaderboard that duo comes with.

    Raises:
        ValueError: it is neither, or a run that is not finished, holds no losses, or is of another version.
    """
    folder = expand(what)
    if folder.is_dir():
        return _of_run(folder, what, label)
    if BEGINNING.fullmatch(what):
        opened = open_store(store)
        return _of_entry(read(opened, find(opened, what, "entries")[1]), what, label)
    raise ValueError(
        f"{what} is neither a run's folder nor the beginning of an entry's digest ({LEAST} digits or more)"
    )


def _of_run(folder: Path, what: str, label: str) -> Finished:
    recipe, found = read_run(folder)
    if isinstance(found, Comparison):
        groups, gap, begins = found.groups, found.gap, found.minus
        first = begins[0] if begins else next(name for rows in groups.values() for name in rows)
    else:
        rows = _rows_of(recipe, found)
        groups, gap, first = {"": rows}, [*BASELINES], next(iter(rows))
        begins = [name for name in COMPARED if name in rows]
    fixed, oracle = gap or ("", "")
    return Finished(
        label=label,
        where=what,
        recipe=found.recipe,
        digest=found.recipe_digest,
        groups=groups,
        first=first,
        gap=(fixed, oracle),
        begins=begins,
        foreign=found.foreign,
        data=_data(flatten(recipe.settings)),
        provenance=found.provenance,
    )


def _rows_of(recipe: Recipe, found: Result) -> dict[str, Row]:
    """The rows of a run of one router, its own first, by the names that its tables have."""
    digests = {"backbone": found.backbone["digest"], "tokens": found.tokens}
    recipes = {"router": recipe} | baseline_recipes(recipe)
    rows = {
        name: structs.replace(
            describe_row(recipes[name]),
            digests=digests,
            scores=found.baselines.get(name, {}),
            subset=subset,
            search=(found.search or {}).get(name, UNSET),
        )
        for name, subset in found.subset.items()
    }
    own = structs.replace(
        rows.pop("router"),
        learned=learns(recipe.new_router()),
        scores=found.scores,
        collapsed=found.collapsed,
    )
    like = rows.get(found.router)  # a run of random routes say, which are among its baselines, with other options maybe
    if like is None or all(score.loss == like.subset[holdout].loss for holdout, score in own.subset.items()):
        return {found.router: own} | {name: row for name, row in rows.items() if name != found.router}
    return {f"{found.router} (own)": own} | rows


def _of_entry(entry: Entry, what: str, label: str) -> Finished:
    name, ends = entry.head.name, find_baselines([([entry], entry.row)], {})
    fixed, oracle = (name if end in ends else "" for end in BASELINES)
    return Finished(
        label=label,
        where=what,
        recipe=f"entry {entry.digest[:8]}",
        digest=entry.digest,
        groups={"": {name: entry.row}},
        first=name,
        gap=(fixed, oracle),
        begins=[],
        foreign=[],
        data=_data(flatten(entry.settings)),
        provenance={"entry": entry.digest, "seed": entry.seed} | structs.asdict(entry.head.provenance),
    )


def _data(flat: dict[str, object]) -> dict[str, object]:
    """The settings that tokens depend on, by dotted key."""
    parts, keys = ("data",), ("backbone.vocabulary", "backbone.pretrained", "leaderboard.backbone")
    return {
        key: value
        for key, value in flat.items()
        if (key.partition(".")[0] in parts or key in keys) and key not in NEVER
    }
