"""Backbones and token sets that are shared by digest: the same weights and tokens on every machine."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors.numpy import load, save
from tokenizers import Tokenizer

import duo
from duo.backbone import Backbone, BackboneConfig
from duo.data.module import TextData
from duo.data.tokens import digests_of, write
from duo.files import replacing, weights_digest
from duo.store import Store

SCHEMA = 1


def default_store() -> str:
    """The `leaderboard` folder of the repository that duo runs from.

    Raises:
        ValueError: duo was installed as a wheel.
    """
    folder = Path(duo.__file__).parents[1] / "leaderboard"
    if not folder.is_dir():
        raise ValueError("this duo is installed without a leaderboard: give leaderboard.store=DIR")
    return str(folder)


def publish(store: Store, backbone: Backbone, weights: Path, data: TextData, about: dict[str, Any]) -> str:
    """Adds a backbone, with the tokens it was trained on and is scored on; returns the backbone's digest.

    Args:
        weights: the backbone's safetensors file.
        about: plain values that tell where the backbone comes from (name, stage, training tokens).
    """
    tokens = {
        name: packed.astype(np.uint16 if len(data.tokenizer.get_vocab()) <= 1 << 16 else np.int32)
        for name, packed in data.packed().items()
    }
    head = {"schema": SCHEMA, "digests": data.digests._asdict(), "tokens": next(iter(tokens.values())).shape[1] - 1}
    files = {"tokenizer.json": data.tokenizer.to_str().encode(), "tokens.safetensors": save(tokens)}
    config = {key: value for key, value in asdict(backbone.config).items() if key != "seed"}
    return store.add(
        "backbones",
        {
            "schema": SCHEMA,
            "about": about,
            "config": config,
            "weights": weights_digest(backbone),
            "parameters": sum(backbone.parameter_counts().values()),
            "tokens": store.add("tokens", head, files),
        },
        {"weights.safetensors": weights.read_bytes()},
    )


def fetch_tokens(store: Store, digest: str, cache: Path) -> Path:
    """The folder of published tokens, as `TextData` reads it; what is there already is not fetched again.

    Raises:
        ValueError: the tokens are missing or were changed, or are not what their head says.
    """
    head = _head(store, "tokens", digest)
    folder = cache / "data" / digest[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            tokenizer = Tokenizer.from_str(store.file("tokens", digest, "tokenizer.json").decode())
            splits = load(store.file("tokens", digest, "tokens.safetensors"))
            packed = {name: tokens.astype(np.int32) for name, tokens in splits.items()}
            if digests_of(tokenizer, packed)._asdict() != head["digests"]:
                raise ValueError(f"tokens/{digest[:12]} are not those that their tokens.json names")
            half_done = folder.with_suffix(".part")
            shutil.rmtree(half_done, ignore_errors=True)
            half_done.mkdir()
            write(half_done, tokenizer, packed)
            half_done.rename(folder)
    return folder


def fetch_backbone(store: Store, digest: str, config: BackboneConfig, cache: Path) -> tuple[Path, dict[str, Any]]:
    """The folder with `backbone.safetensors` of a published backbone, and what is told of it.

    Raises:
        ValueError: the backbone is missing or was changed, or has another shape than `config`.
    """
    head = _head(store, "backbones", digest)
    ours = asdict(config)
    other = {key: value for key, value in head["config"].items() if ours.get(key) != value}
    if other:
        wanted = " ".join(f"backbone.{key}={'null' if value is None else value}" for key, value in other.items())
        raise ValueError(f"leaderboard.backbone={digest[:12]} has another shape than the recipe says: give {wanted}")
    folder = cache / "backbones" / digest[:16]
    if not (folder / "backbone.safetensors").exists():
        with replacing(folder / "backbone.safetensors") as path:
            path.write_bytes(store.file("backbones", digest, "weights.safetensors"))
    return folder, head


def _head(store: Store, kind: str, digest: str) -> dict[str, Any]:
    head = store.head(kind, digest)
    if head.get("schema") != SCHEMA:
        raise ValueError(f"{kind}/{digest[:12]} has schema {head.get('schema')!r}, this duo reads {SCHEMA}")
    return head
