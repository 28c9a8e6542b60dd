"""A router trained again in a process whose data holds no hold-out: what it learns, it learns from other tokens."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

from duo.backbone import Backbone
from duo.data.datamodule import TextData
from duo.data.tokens import pair_documents, write
from duo.leaderboard.entry.recipe import from_yaml
from duo.leaderboard.sealed.process import PATIENCE, run_child
from duo.leaderboard.sealed.protocol import BACKBONE, TRAINED, Answer, read_bounded, write_answer
from duo.leaderboard.sealed.scoring import lend_published
from duo.routing.router import Router
from duo.stages.cache import Made
from duo.stages.stage3 import train_or_load_router
from duo.storage.weights import load_weights, save_weights, weights_digest
from duo.training.trainer import join_world

RECIPE, DATA = "recipe.yaml", "data"
MOST = 1 << 30  # bytes of a router's weights

log = logging.getLogger(__name__)


def retrain(
    text: str, backbone: Made[Backbone], data: TextData, folder: Path, patience: float = PATIENCE
) -> Made[Router]:
    """The router of an entry's recipe, trained and calibrated by a child that has no hold-out.

    Args:
        text: the entry's recipe, whose backbone is frozen.
        backbone: the published one.
        data: the published tokens, of which the child gets those of training and calibration.
        folder: where its weights are put.
        patience: seconds that the child may take.

    Raises:
        ValueError: what the router raises; or the child died or gave no weights.
    """
    recipe = from_yaml(text)
    router = recipe.new_router()
    who = f"router {recipe.router['name']!r}"
    log.info("sealed  training %s in a process without hold-outs", who)
    with tempfile.TemporaryDirectory() as temporary:
        sealed = Path(temporary)
        (sealed / RECIPE).write_text(text)
        save_weights(backbone.module, sealed / BACKBONE)
        _write_known(data, sealed / DATA)
        lend_published(recipe, sealed / "store")
        answer = run_child("train", sealed, who, patience)
        if answer.failed is not None:
            raise ValueError(answer.failed)
        weights = read_bounded(sealed / TRAINED, MOST)
    (folder / "router.safetensors").write_bytes(weights)
    load_weights(router, folder / "router.safetensors")
    device = next(backbone.module.parameters()).device
    return Made(router.to(device), folder, weights_digest(router))


def train(folder: Path) -> None:
    """The child: trains and calibrates the router of the recipe in the folder, and leaves its weights there."""
    recipe = from_yaml((folder / RECIPE).read_text())
    device = join_world(recipe.trainer)
    backbone = Backbone(recipe.backbone)
    load_weights(backbone, folder / BACKBONE)
    data = TextData(recipe.data, recipe.backbone.vocabulary, folder / "cache", folder / DATA)
    data.setup()
    made = Made(backbone.to(device), folder, weights_digest(backbone))
    router = train_or_load_router(recipe, made, data)
    shutil.copyfile(router.folder / "router.safetensors", folder / TRAINED)
    write_answer(folder, Answer())


def _write_known(data: TextData, folder: Path) -> None:
    """Writes the splits that a router may learn from."""
    known = {name: tokens for name, tokens in data.packed().items() if not name.startswith("holdouts.")}
    rows = {name: pair_documents(tokens, data.documents(name)) for name, tokens in known.items()}
    folder.mkdir()
    write(folder, data.tokenizer, rows)
