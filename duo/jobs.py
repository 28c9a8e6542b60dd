"""What a run does: one router beside its baselines, or a comparison of rows."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from duo import figures, registry, stages
from duo.comparison import Comparison
from duo.data.module import TextData
from duo.files import is_chief, replacing
from duo.provenance import provenance
from duo.recipe import Recipe
from duo.report import Result
from duo.score import collapsed
from duo.sources import source_digest
from duo.training.trainer import loss_curve


def finished(recipe: Recipe, folder: Path) -> Result | Comparison | None:
    """What an earlier run left in the folder; a comparison in which a row failed is gone through again.

    Raises:
        ValueError: it cannot be read, or a router's source has changed since.
    """
    if not (folder / "result.json").exists():
        return None
    found = Comparison.load(folder) if recipe.compare.names else Result.load(folder)
    if isinstance(found, Comparison) and any(row.failed for rows in found.groups.values() for row in rows.values()):
        return None
    before = found.provenance["sources"]
    changed = [name for name, source in _sources(recipe).items() if before.get(name) != source]
    if changed:
        raise ValueError(
            f"router {', '.join(changed)} has changed since output={folder} was made: choose another folder, or delete "
            f"{folder / 'result.json'} to evaluate again"
        )
    return found


def _sources(recipe: Recipe) -> dict[str, str]:
    """Digests of the source of all routers that are the recipe's own, by name."""
    rows = [row for rows in recipe.groups().values() for row in rows.values()] or [recipe]
    return {name: source_digest(registry.load(name)) for name in sorted({row.router["name"] for row in rows})}


def work(recipe: Recipe, name: str, command: str, folder: Path, cache: Path, say: stages.Say) -> Result | Comparison:
    """Trains what is not trained yet, evaluates, and leaves the result and its figures in the folder."""
    stages.device_of(recipe)  # impossible devices show before any work
    return (_comparison if recipe.compare.names else _single)(recipe, name, command, folder, cache, say)


def _single(recipe: Recipe, name: str, command: str, folder: Path, cache: Path, say: stages.Say) -> Result:
    start, data = time.time(), TextData(recipe.data, recipe.backbone.vocabulary, cache)
    say("data", f"{recipe.data.source} documents, prepared once in {cache / 'data'}")
    data.setup()
    identity = stages.backbone_digest(recipe, data)
    _check_begun(folder, identity)
    at = stages.backbone_folder(recipe, data), stages.router_folder(recipe, data)
    backbone = stages.trained_backbone(recipe, data, say)
    router = stages.trained_router(recipe, backbone, data, say)
    scores, luck = stages.evaluated(recipe, backbone, router, data, say)
    closed = stages.gaps(scores)
    ours, budget = scores.whole.pop("router", {}), router.spec.budget
    result = Result(
        recipe=name,
        recipe_digest=recipe.digest,
        router=recipe.router["name"],
        budget={"big": budget.big, "skip": budget.skip},
        backbone={
            "digest": identity,
            "parameters": sum(backbone.parameter_counts().values()),
            "train_tokens": recipe.stage1.steps * recipe.data.batch_size * recipe.data.tokens,
        },
        scores=ours,
        baselines=scores.whole,
        subset=scores.subset,
        gap_closed=closed,
        luck=luck,
        collapsed={holdout: collapsed(score) if stages.learns(router) else [] for holdout, score in ours.items()},
        provenance=provenance(recipe.seed, stages.device_of(recipe), time.time() - start, command, _sources(recipe)),
    )
    if is_chief():
        _copy(at, folder)
        curves = {title: loss_curve(logs) for title, logs in zip(("stage 1", "stage 3"), at, strict=True)}
        _save(result, figures.of_result(result, curves), folder)
    return result


def _comparison(recipe: Recipe, name: str, command: str, folder: Path, cache: Path, say: stages.Say) -> Comparison:
    start = time.time()
    groups = stages.compared(recipe, cache, say)
    comparison = Comparison(
        recipe=name,
        recipe_digest=recipe.digest,
        groups=groups,
        minus=recipe.compare.minus,
        gap=recipe.compare.gap,
        provenance=provenance(recipe.seed, stages.device_of(recipe), time.time() - start, command, _sources(recipe)),
    )
    failed = [row.failed for rows in groups.values() for row in rows.values()]
    if all(failed):
        raise ValueError(f"every row failed; the first one: {failed[0]}")
    if is_chief():
        _save(comparison, figures.of_comparison(comparison), folder)
    return comparison


def _save(result: Result | Comparison, pictures: figures.Pictures, folder: Path) -> None:
    for name, picture in pictures.items():
        figures.save(picture, folder / "figures" / f"{name}.png")
    result.save(folder)


def _copy(trained: tuple[Path, Path], folder: Path) -> None:
    """A run's own copy of the weights and of its router's logs."""
    shutil.copy(trained[0] / "backbone.safetensors", folder)
    shutil.copytree(trained[1], folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))


def _check_begun(folder: Path, identity: str) -> None:
    """Notes the backbone that the folder's weights belong to.

    Raises:
        ValueError: it was another one when the run began: its documents have changed since.
    """
    mark = folder / "backbone.digest"
    if not mark.exists() and is_chief():
        with replacing(mark) as path:
            path.write_text(identity)
    elif mark.exists() and mark.read_text() != identity:
        raise ValueError(f"output={folder} was begun on other documents than are there now: choose another folder")
