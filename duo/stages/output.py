"""A run's own folder: whose it is, what an earlier start left there, and what is kept of a run."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from tokenizers import Tokenizer

from duo.backbone import Backbone
from duo.evaluation.comparison import Comparison
from duo.evaluation.downstream import Downstream
from duo.evaluation.format import load_struct, save_struct
from duo.evaluation.result import Result
from duo.recipe import OldKey, Recipe, load
from duo.recipe.read import merge
from duo.routing import registry
from duo.routing.router import Router
from duo.routing.source import source_digest
from duo.stages.cache import Made, default_cache
from duo.storage.files import expand, remove_left_over, replacing
from duo.storage.location import shown
from duo.storage.processes import is_chief

log = logging.getLogger(__name__)
RECIPE, RESULT, CURVES, TOKENIZER = "recipe.yaml", "result.json", "curves.json", "tokenizer.json"
Curve = list[tuple[int, float]]
"""(step, loss) of a training."""


def folder_of(recipe: Recipe, name: str) -> Path:
    """The run's folder."""
    return expand(recipe.output or f"outputs/{name}-{recipe.digest[:8]}")


def cache_of(recipe: Recipe, folder: Path) -> Path:
    """Where prepared data and trained backbones are kept."""
    if recipe.cache == "none":
        return folder / "cache"
    return expand(recipe.cache) if recipe.cache else default_cache()


@contextmanager
def hold_output(recipe: Recipe, name: str, folder: Path) -> Iterator[None]:
    """Makes the run's folder, or takes it up again, and keeps other runs out of it.

    Raises:
        ValueError: it belongs to another run, is in use, holds other files, or cannot be written.
    """
    claim_output(recipe, name, folder)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"output={folder} is in use by another run: wait for it, or choose another folder") from error
    except (OSError, NotImplementedError) as error:  # the latter where a file system knows no locks
        raise ValueError(f"output={folder} cannot be written: {_reason(error)}; choose another folder") from error
    remove_left_over(folder)
    try:
        yield
    finally:
        lock.release()


def claim_output(recipe: Recipe, name: str, folder: Path) -> None:
    """Makes the run's folder, if it is not there; raises ValueError as `hold_output` where it cannot be the run's."""
    if (folder / RECIPE).exists():
        _check_ours(recipe, folder)
    else:
        _begin(recipe, name, folder)


def _check_ours(recipe: Recipe, folder: Path) -> None:
    try:
        theirs = load(str(folder / RECIPE)).digest
    except OldKey as error:
        raise ValueError(f"output={folder} holds a run of an older duo ({error}): choose another folder") from error
    except ValueError as error:
        raise ValueError(f"output={folder} holds a {RECIPE} that is not ours ({error}): choose another") from error
    if theirs != recipe.digest:
        which = f"({theirs[:8]}; this one is {recipe.digest[:8]})"
        raise ValueError(f"output={folder} belongs to another recipe {which}: choose another folder")


def _begin(recipe: Recipe, name: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # locks and half-written files are hidden, and nobody else's
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ValueError(f"output={folder} holds files of something else: choose a new or empty folder")
        store = recipe.leaderboard.store  # may hold a password
        kept = merge(recipe.settings, {"leaderboard": {"store": store and shown(store)}})
        with replacing(folder / RECIPE) as path:
            # over the first defaults: a key that is new later then means what was so before it
            text = OmegaConf.to_yaml({"base": "first"} | kept)
            path.write_text(f"# {name}, resolved; digest {recipe.digest}\n{text}", encoding="utf-8")
    except OSError as error:
        raise ValueError(f"output={folder} cannot be written: {_reason(error)}; choose another folder") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def load_finished(recipe: Recipe, folder: Path) -> Result | Comparison | Downstream | None:
    """What an earlier start left in the folder; a comparison in which a row failed is gone through again.

    Raises:
        ValueError: it cannot be read, or a router's source has changed since.
    """
    if not (folder / RESULT).exists():
        return None
    found = read_result(recipe, folder)
    if isinstance(found, Comparison) and any(row.failed for row in found.rows):
        return None
    before = found.provenance["sources"]
    changed = [name for name, source in digest_sources(recipe).items() if before.get(name) != source]
    if changed:
        raise ValueError(
            f"router {', '.join(changed)} has changed since output={folder} was made: choose another folder, or delete "
            f"{folder / 'result.json'} to evaluate again"
        )
    return found


def read_result(recipe: Recipe, folder: Path) -> Result | Comparison | Downstream:
    """A finished run's result; raises ValueError where there is none, or one that cannot be read."""
    if not (folder / RESULT).exists():
        raise ValueError(
            f"{folder} lacks {RESULT}: its run is not finished; the same python -m duo.run goes on with it"
        )
    if recipe.tasks:
        return load_struct(Downstream, folder, RESULT)
    if recipe.compare.names:
        return load_struct(Comparison, folder, RESULT)
    return load_struct(Result, folder, RESULT)


def digest_sources(recipe: Recipe) -> dict[str, str]:
    """Digests of the source of all routers that are the recipe's own, by name."""
    return {name: source_digest(registry.load(name)) for name in sorted({row.router["name"] for row in recipe.rows()})}


def note_backbone(folder: Path, identity: str) -> None:
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


def keep_weights(folder: Path, backbone: Made[Backbone], router: Made[Router], tokenizer: Tokenizer) -> None:
    """Copies a run's weights and the router's logs out of the cache, and writes what its tokens mean.

    Raises:
        OSError: a file cannot be written; it is named.
    """
    with replacing(folder / TOKENIZER) as temporary:
        tokenizer.save(str(temporary))
    _copy(backbone.folder / "backbone.safetensors", folder / "backbone.safetensors")
    for path in router.folder.rglob("*"):  # second: a backbone that learned with its router lies here
        name = path.relative_to(router.folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            _copy(path, folder / name)


def _copy(path: Path, copy: Path) -> None:
    with replacing(copy) as temporary:
        shutil.copy(path, temporary)


def keep_curves(folder: Path, curves: dict[str, Curve]) -> None:
    """Writes the loss curve of each stage: a later start, which trains nothing, may have to draw them."""
    with replacing(folder / CURVES) as path:
        path.write_bytes(msgspec.json.encode(curves))


def load_curves(folder: Path) -> dict[str, Curve]:
    """The loss curve of each stage; none where a comparison, or an older duo, left none."""
    try:
        return msgspec.json.decode((folder / CURVES).read_bytes(), type=dict[str, Curve])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("figures  %s cannot be read: %s", folder / CURVES, error)
        return {}


def keep_result(folder: Path, result: Result | Comparison | Downstream) -> None:
    """Writes the result, which says that the run is finished, in the place of an earlier one and its figures."""
    for figure in folder.glob("figures/*.png"):
        figure.unlink()
    save_struct(result, folder, RESULT)
