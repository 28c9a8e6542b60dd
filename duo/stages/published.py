"""Backbones and token sets that are shared by digest: the same weights and tokens on every machine."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from filelock import FileLock
from msgspec import Meta, Struct, to_builtins
from safetensors.numpy import load, save
from tokenizers import Tokenizer

import duo
from duo.backbone import Backbone, BackboneConfig
from duo.data.datamodule import TextData
from duo.data.tokens import digests_of, write
from duo.storage.files import replacing
from duo.storage.store import HEADS, Store
from duo.storage.weights import weights_digest

SCHEMA = 1
T = TypeVar("T")

Version = Annotated[int, Meta(ge=SCHEMA, le=SCHEMA)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Label = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[\w .,:=+-]*$")]
Count = Annotated[int, Meta(ge=1, le=1 << 48)]


class About(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a backbone comes from, as its maker says."""

    name: Label
    train_tokens: Annotated[int, Meta(ge=0, le=1 << 62)]
    seed: int
    stage1: dict[Label, Any]


class BackboneHead(Struct, frozen=True, forbid_unknown_fields=True):
    """`backbone.json`: a published backbone."""

    schema: Version
    about: About
    config: dict[Label, str | int | float | bool | None]
    """Fields of `BackboneConfig`."""
    weights: Digest
    """Of the parameters themselves (`duo.files.weights_digest`)."""
    parameters: Count
    tokens: Digest
    """The published tokens that it was trained on and is scored on."""
    files: dict[str, Digest]


class TokensHead(Struct, frozen=True, forbid_unknown_fields=True):
    """`tokens.json`: a tokenizer, and packed sequences by split."""

    schema: Version
    digests: dict[Label, Digest]
    """Of the tokenizer with the training tokens (`train`), and with all tokens (`whole`)."""
    length: Annotated[int, Meta(ge=1, le=1 << 16)]
    """Tokens of a sequence (T)."""
    splits: dict[Label, Annotated[int, Meta(ge=1, le=1 << 24)]]
    """Sequences of every split."""
    files: dict[str, Digest]


def default_store() -> str:
    """The `leaderboard` folder of the repository that duo runs from.

    Raises:
        ValueError: duo was installed as a wheel.
    """
    folder = Path(duo.__file__).parents[1] / "leaderboard"
    if not folder.is_dir():
        raise ValueError("this duo is installed without a leaderboard: give leaderboard.store=DIR")
    return str(folder)


def published(store: Store, backbone: Backbone, data: TextData) -> str | None:
    """Digest of a published backbone with these weights and tokens, if there is one."""

    def identity(digest: str) -> tuple[str, dict[str, str]]:
        head = backbone_head(store, digest)
        return head.weights, tokens_head(store, head.tokens).digests

    ours = weights_digest(backbone), data.digests._asdict()
    return next((digest for digest, found in store.sound("backbones", identity) if found == ours), None)


def publish(store: Store, backbone: Backbone, weights: Path, data: TextData, about: About) -> str:
    """Adds a backbone with its tokens, of all splits; returns the backbone's digest.

    Args:
        weights: the backbone's safetensors file.
        about: where the backbone comes from.

    Raises:
        ValueError: a field of `about` is not what it should be; nothing is added.
    """
    try:
        msgspec.convert(to_builtins(about), About)
    except msgspec.ValidationError as error:
        raise ValueError(f"the backbone cannot be called {about.name!r}: {error}") from error
    packed = data.packed()
    smaller = np.uint16 if len(data.tokenizer.get_vocab()) <= 1 << 16 else np.int32
    arrays = {name: tokens.astype(smaller) for name, tokens in packed.items()}
    splits = {name: len(tokens) for name, tokens in packed.items()}
    length = next(iter(packed.values())).shape[1] - 1
    tokens_digest = store.add(
        "tokens",
        {"schema": SCHEMA, "digests": data.digests._asdict(), "length": length, "splits": splits},
        {"tokenizer.json": data.tokenizer.to_str().encode(), "tokens.safetensors": save(arrays)},
    )
    config = {key: value for key, value in asdict(backbone.config).items() if key != "seed"}
    found = {
        "schema": SCHEMA,
        "about": to_builtins(about),
        "config": config,
        "weights": weights_digest(backbone),
        "parameters": sum(backbone.parameter_counts().values()),
        "tokens": tokens_digest,
    }
    return store.add("backbones", found, {"weights.safetensors": weights.read_bytes()})


def backbone_head(store: Store, digest: str) -> BackboneHead:
    """What is told of a published backbone; raises ValueError where it is missing, was changed or is malformed."""
    return _converted(store, "backbones", digest, BackboneHead)


def tokens_head(store: Store, digest: str) -> TokensHead:
    """What is told of published tokens; raises ValueError where they are missing, were changed or are malformed."""
    return _converted(store, "tokens", digest, TokensHead)


def fetch_tokens(store: Store, digest: str, length: int, cache: Path) -> Path:
    """The folder of published tokens, as `TextData` reads it; what is there already is not fetched again.

    Raises:
        ValueError: the tokens are missing or were changed, are not what their head says, or of another length.
    """
    head = tokens_head(store, digest)
    if head.length != length:
        raise ValueError(f"the published tokens come in sequences of {head.length}: give data.tokens={head.length}")
    folder = cache / "data" / digest[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            tokenizer, packed = _unpacked(store, digest)
            sizes = {name: len(tokens) for name, tokens in packed.items()}
            if digests_of(tokenizer, packed)._asdict() != head.digests or sizes != head.splits:
                raise ValueError(f"tokens/{digest[:12]} are not those that their tokens.json names")
            half_done = folder.with_suffix(".part")
            shutil.rmtree(half_done, ignore_errors=True)
            half_done.mkdir()
            write(half_done, tokenizer, packed)
            half_done.rename(folder)
    return folder


def fetch_backbone(store: Store, digest: str, config: BackboneConfig, cache: Path) -> tuple[Path, BackboneHead]:
    """The folder with `backbone.safetensors` of a published backbone, and what is told of it.

    Raises:
        ValueError: the backbone is missing or was changed, or has another shape than `config`.
    """
    head = backbone_head(store, digest)
    ours = asdict(config)
    other = {key: value for key, value in head.config.items() if ours.get(key) != value}
    if other:
        wanted = " ".join(f"backbone.{key}={'null' if value is None else value}" for key, value in other.items())
        raise ValueError(f"leaderboard.backbone={digest[:12]} has another shape than the recipe says: give {wanted}")
    folder = cache / "backbones" / digest[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "backbone.safetensors").exists():
            with replacing(folder / "backbone.safetensors") as path:
                path.write_bytes(store.file("backbones", digest, "weights.safetensors", to_builtins(head)))
    return folder, head


def _unpacked(store: Store, digest: str) -> tuple[Tokenizer, dict[str, np.ndarray]]:
    head = to_builtins(tokens_head(store, digest))
    try:
        tokenizer = Tokenizer.from_str(store.file("tokens", digest, "tokenizer.json", head).decode())
        splits = load(store.file("tokens", digest, "tokens.safetensors", head))
    except Exception as error:  # tokenizers and safetensors have exceptions of their own
        raise ValueError(f"tokens/{digest[:12]} cannot be read: {error}") from error
    return tokenizer, {name: tokens.astype(np.int32) for name, tokens in splits.items()}


def _converted(store: Store, kind: str, digest: str, shape: type[T]) -> T:
    try:
        return msgspec.convert(store.head(kind, digest), shape)
    except msgspec.ValidationError as error:
        raise ValueError(f"{kind}/{digest[:12]}/{HEADS[kind]}: {error}") from error
