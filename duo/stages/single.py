"""What a run does: one router beside its baselines, or a comparison of rows."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from duo import stages
from duo.evaluation.comparison import Comparison
from duo.evaluation.provenance import provenance
from duo.evaluation.result import Result
from duo.evaluation.row import gap_closed
from duo.recipe.schema import Recipe
from duo.report import figures
from duo.routing import registry
from duo.routing.source import source_digest
from duo.storage.files import replacing
from duo.storage.processes import is_chief
from duo.training.trainer import loss_curve


def finished(recipe: Recipe, folder: Path) -> Result | Comparison | None:
    """What an earlier run left in the folder; a comparison in which a row failed is gone through again.

    Raises:
        ValueError: it cannot be read, or a router's source has changed since.
    """
    if not (folder / "result.json").exists():
        return None
    found = Comparison.load(folder) if recipe.compare.names else Result.load(folder)
    if isinstance(found, Comparison) and any(row.failed for row in found.rows):
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
    return {name: source_digest(registry.load(name)) for name in sorted({row.router["name"] for row in recipe.rows()})}


def work(recipe: Recipe, name: str, command: str, folder: Path, cache: Path, say: stages.Say) -> Result | Comparison:
    """Trains what is not trained yet, evaluates, and leaves the result and its figures in the folder."""
    stages.device_of(recipe)  # impossible devices show before any work
    return (_comparison if recipe.compare.names else _single)(recipe, name, command, folder, cache, say)


def _single(recipe: Recipe, name: str, command: str, folder: Path, cache: Path, say: stages.Say) -> Result:
    published = recipe.leaderboard.backbone
    say("data", f"{'published tokens' if published else f'{recipe.data.source} documents'}, kept in {cache / 'data'}")
    start, data = time.time(), stages.data_of(recipe, cache)
    _check_begun(folder, stages.backbone_digest(recipe, data))
    backbone, router = stages.made(recipe, data, say)
    ours = stages.scored(recipe, backbone, router, data, say)
    beside = stages.made_beside(recipe, backbone, data, say)
    rows = {"router": ours} | {name: row for name, (_, row) in beside.items()}
    fixed, oracle = rows["fixed_best"], rows["oracle"]
    luck = {}
    if recipe.null_draws:
        real = {holdout: (ours.subset[holdout], fixed.subset[holdout]) for holdout in data.holdouts}
        luck = stages.luck(recipe, backbone.module, router.module, beside["fixed_best"][0].module, data, real, say)
    result = Result(
        recipe=name,
        recipe_digest=recipe.digest,
        router=ours.router,
        budget=ours.budget,
        backbone={
            "digest": backbone.digest,
            "parameters": sum(backbone.module.parameter_counts().values()),
            "train_tokens": recipe.stage1.steps * recipe.data.batch_size * recipe.data.tokens,
        },
        tokens=data.digests.whole,
        scores=ours.scores,
        baselines={name: row.scores for name, row in rows.items() if name != "router" and row.scores},
        subset={name: row.subset for name, row in rows.items()},
        gap_closed={holdout: gap_closed(ours, fixed, oracle, holdout) for holdout in ours.subset},
        luck=luck,
        collapsed=ours.collapsed,
        provenance=_provenance(recipe, start, command),
    )
    if is_chief():
        shutil.copy(backbone.folder / "backbone.safetensors", folder)
        shutil.copytree(router.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        curves = {"stage 1": loss_curve(backbone.folder), "stage 3": loss_curve(router.folder)}
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
        provenance=_provenance(recipe, start, command),
    )
    failed = [row.failed for row in comparison.rows]
    if all(failed):
        raise ValueError(f"every row failed; the first one: {failed[0]}")
    if is_chief():
        _save(comparison, figures.of_comparison(comparison), folder)
    return comparison


def _provenance(recipe: Recipe, start: float, command: str) -> dict[str, Any]:
    return provenance(recipe.seed, stages.device_of(recipe), time.time() - start, command, _sources(recipe))


def _save(result: Result | Comparison, pictures: figures.Pictures, folder: Path) -> None:
    for name, picture in pictures.items():
        figures.save(picture, folder / "figures" / f"{name}.png")
    result.save(folder)


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
