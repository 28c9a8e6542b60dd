"""What a leaderboard says of shared backbones and tokens, and how they are added to it."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Struct, to_builtins
from safetensors.numpy import save

from duo.backbone import Backbone, BackboneConfig
from duo.data.config import DataConfig
from duo.data.datamodule import TextData
from duo.data.token_text import spells_text
from duo.storage.store import HEADS, Store
from duo.storage.weights import weights_digest

SCHEMA = 2
DEFAULTS = {field.name: getattr(BackboneConfig(), field.name) for field in fields(BackboneConfig)}
NAMED = {*[*DEFAULTS][: [*DEFAULTS].index("head_dim")]}
"""Fields that every published backbone names."""

T = TypeVar("T")
log = logging.getLogger(__name__)

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
    config: dict[Label, str | int | float | bool | list[int] | None]
    """Fields of `BackboneConfig`; what is left out is the default."""
    weights: Digest
    """Of the parameters themselves (`duo.storage.weights.weights_digest`)."""
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
    documents: dict[Label, Annotated[list[Count], Meta(min_length=1, max_length=1 << 16)]]
    """Sequences of every document, by split other than training, in order."""
    files: dict[str, Digest]


def find_published(store: Store, backbone: Backbone, data: TextData) -> str | None:
    """Digest of a published backbone with these weights and tokens, if there is one."""

    def identity(digest: str) -> tuple[str, dict[str, str]]:
        head = backbone_head(store, digest)
        return head.weights, tokens_head(store, head.tokens).digests

    ours = weights_digest(backbone), data.digests._asdict()
    return next((digest for digest, found in store.sound("backbones", identity) if found == ours), None)


def check_kept(config: DataConfig) -> None:
    """Raises ValueError where the tokens that a backbone is trained on are not all there to be published with it."""
    if config.stream:
        raise ValueError(
            "data.stream=true keeps no tokens, and a leaderboard takes backbones with all tokens that they trained "
            "on: train one without it"
        )


def publish(store: Store, backbone: Backbone, weights: Path, data: TextData, about: About) -> str:
    """Adds a backbone with its tokens, of all splits; returns the backbone's digest.

    Args:
        weights: the backbone's safetensors file.
        about: where the backbone comes from.

    Raises:
        ValueError: a field of `about` is not what it should be; nothing is added.
    """
    check_about(about)
    check_kept(data.config)
    if not spells_text(data.tokenizer):
        raise ValueError(
            "the tokenizer changes texts, so that its tokens do not say how many bytes they stand for: a leaderboard "
            "takes byte-level tokenizers without a normalizer alone"
        )
    head = {
        "schema": SCHEMA,
        "about": to_builtins(about),
        "config": shape_of(backbone),
        "weights": weights_digest(backbone),
        "parameters": sum(backbone.parameter_counts().values()),
        "tokens": _add_tokens(store, data),  # first, for this head names them
    }
    return store.add("backbones", head, {"weights.safetensors": weights.read_bytes()})


def _add_tokens(store: Store, data: TextData) -> str:
    """Adds a tokenizer and the packed tokens of all splits; returns their digest."""
    packed = data.packed()
    smaller = np.uint16 if max(data.tokenizer.get_vocab().values()) < 1 << 16 else np.int32
    arrays = {name: tokens.astype(smaller) for name, tokens in packed.items()}
    head = {
        "schema": SCHEMA,
        "digests": data.digests._asdict(),
        "length": next(iter(packed.values())).shape[1] - 1,
        "splits": {name: len(tokens) for name, tokens in packed.items()},
        "documents": {name: np.bincount(data.documents(name)).tolist() for name in packed if name != "train"},
    }
    files = {"tokenizer.json": data.tokenizer.to_str().encode(), "tokens.safetensors": save(arrays)}
    return store.add("tokens", head, files)


def shape_of(backbone: Backbone) -> dict[str, Any]:
    """The fields of its `BackboneConfig` that a published backbone names: the seed of a training is none of them.

    Fields since `head_dim` are named where they are not the default alone: what was published before has the same head.
    """
    return {key: value for key, value in full_shape(backbone.config).items() if key in NAMED or value != DEFAULTS[key]}


def full_shape(config: BackboneConfig) -> dict[str, Any]:
    """All fields of `BackboneConfig`."""
    return {key: getattr(config, key) for key in DEFAULTS}


def check_about(about: About) -> None:
    """Raises ValueError where a field of `about` is not what it should be."""
    try:
        msgspec.convert(to_builtins(about), About)  # a Struct is not checked when it is built
    except msgspec.ValidationError as error:
        raise ValueError(f"the backbone cannot be called {about.name!r}: {error}") from error


def copy_published(store: Store, digest: str, source: Store) -> str:
    """Adds a backbone that another store holds, and its tokens, as they are; returns its digest.

    Raises:
        ValueError: a file is missing or was changed there.
    """
    store.copy("tokens", backbone_head(source, digest).tokens, source)  # first, for the backbone's head names them
    store.copy("backbones", digest, source)
    return digest


def backbone_head(store: Store, digest: str) -> BackboneHead:
    """What is told of a published backbone; raises ValueError where it is missing, was changed or is malformed."""
    return _convert(store, "backbones", digest, BackboneHead)


def documents_of(head: TokensHead, split: str) -> np.ndarray:
    """document_N: the number of the document that each sequence of a split lies in; -1 in training."""
    counts = head.documents.get(split)
    return np.full(head.splits[split], -1) if counts is None else np.repeat(np.arange(len(counts)), counts)


def tokens_head(store: Store, digest: str) -> TokensHead:
    """What is told of published tokens; raises ValueError where they are missing, were changed or are malformed."""
    return _convert(store, "tokens", digest, TokensHead)


def _convert(store: Store, kind: str, digest: str, shape: type[T]) -> T:
    try:
        return msgspec.convert(store.head(kind, digest), shape)
    except msgspec.ValidationError as error:
        raise ValueError(f"{kind}/{digest[:12]}/{HEADS[kind]}: {error}") from error
