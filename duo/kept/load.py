"""Backbone, router and tokenizer of what was made, checked by the digests that were noted when it was."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from duo.evaluation.comparison import Comparison
from duo.kept.loaded import Loaded
from duo.leaderboard.entry.entry import read
from duo.leaderboard.entry.recipe import from_yaml
from duo.leaderboard.entry.router import open_router
from duo.recipe import Recipe
from duo.stages.output import cache_of, read_result
from duo.stages.published import open_published, open_tokens
from duo.stages.writer import Writer, load_run, writer_of_row, writer_of_run
from duo.storage.files import expand
from duo.storage.shared import BEGINNING, LEAST, find, open_store
from duo.storage.store import Store


def load(
    what: str | Path,
    row: str | None = None,
    *,
    group: str | None = None,
    seed: int | None = None,
    store: str | None = None,
    cache: str | Path | None = None,
    device: str = "cpu",
) -> Loaded:
    """Backbone, router and tokenizer of a run, of a row of a comparison, of an entry, or a published backbone.

    Args:
        what: the folder of a finished run; or a digest, or its beginning, of an entry or a backbone in a store.
        row: of a comparison, whose weights lie in the cache.
        group: of a comparison that goes over several, as its table names it (`budget.big=4`).
        seed: of a row that has several; default: the first.
        store: where digests are looked up; default: the leaderboard that duo comes with.
        cache: where a comparison's weights are; default: where its recipe says.
        device: where backbone and router are put.

    Raises:
        ValueError: there is nothing of that name, it is unfinished or damaged, or its digests are not those that were
            noted when it was made.
    """
    folder = expand(str(what))
    if folder.is_dir():
        loaded = _load_folder(folder, row, group, seed, cache, device)
    elif BEGINNING.fullmatch(str(what)):
        loaded = _load_digest(str(what), store, device)
    else:
        raise ValueError(f"{what} is neither a run's folder nor the beginning of a digest ({LEAST} digits or more)")
    for module in (loaded.backbone, loaded.router):
        if module is not None:
            module.eval().requires_grad_(False)
    return loaded


def _load_folder(
    folder: Path, row: str | None, group: str | None, seed: int | None, cache: str | Path | None, device: str
) -> Loaded:
    recipe = load_run(folder, [])
    if recipe.report.names:
        raise ValueError(f"{folder} holds a report: load the folder of a run of one of its parts")
    if not recipe.compare.names:
        if named := [name for name, value in (("row", row), ("group", group), ("seed", seed)) if value is not None]:
            raise ValueError(f"{folder} holds a run of one router: leave out {', '.join(named)}")
        return _loaded(writer_of_run(folder, recipe, torch.device(device)), recipe)
    found = read_result(recipe, folder)
    assert isinstance(found, Comparison)
    group = _choose("group", group, [*found.groups], folder)
    row = _choose("row", row, [*found.groups[group]], folder)
    told = found.groups[group][row]
    if told.failed:
        raise ValueError(f"row {row} of {folder} failed: {told.failed}")
    seeds = range(recipe.seed, recipe.seed + told.seeds)
    if seed is not None and seed not in seeds:
        raise ValueError(f"seed={seed}: row {row} of {folder} has {', '.join(map(str, seeds))}")
    made = replace(recipe.groups[group][row], seed=recipe.seed if seed is None else seed)
    where = cache_of(recipe, folder) if cache is None else expand(str(cache))
    return _loaded(writer_of_row(made, told, where, torch.device(device)), made)


def _loaded(writer: Writer, recipe: Recipe) -> Loaded:
    return Loaded(writer.backbone, writer.router, writer.tokenizer, recipe.data.tokens)


def _choose(what: str, asked: str | None, there: list[str], folder: Path) -> str:
    """The one that is asked for, or the only one."""
    if asked is None and len(there) == 1:
        return there[0]
    if asked not in there:
        names = ", ".join(name or "one without a name" for name in there)
        said = f"{folder} is a comparison: name a {what}" if asked is None else f"{what}={asked}"
        raise ValueError(f"{said}; there {'is' if len(there) == 1 else 'are'} {names}")
    return asked


def _load_digest(beginning: str, location: str | None, device: str) -> Loaded:
    store = open_store(location)
    kind, digest = find(store, beginning, "entries", "backbones")
    if kind == "entries":
        return _load_entry(store, digest, device)
    return Loaded(open_published(store, digest)[0].to(device), None, *open_tokens(store, digest))


def _load_entry(store: Store, digest: str, device: str) -> Loaded:
    entry = read(store, digest)
    with tempfile.TemporaryDirectory() as folder:
        router = open_router(store, entry, from_yaml(entry.recipe), Path(folder))
    backbone, _ = open_published(store, entry.backbone)
    return Loaded(backbone.to(device), router.to(device), *open_tokens(store, entry.backbone))
