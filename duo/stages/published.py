"""A backbone out of a leaderboard, with the tokens it was trained on and is scored on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from msgspec import to_builtins
from safetensors.numpy import load
from safetensors.torch import load as load_tensors
from tokenizers import Tokenizer

from duo.backbone import Backbone, BackboneConfig
from duo.data.config import DataConfig
from duo.data.datamodule import TextData
from duo.data.tokenizer import literal, tokenizer_digest
from duo.data.tokens import Packed, digests_of, pair_documents, write
from duo.recipe.sections import LeaderboardConfig
from duo.stages.cache import Made
from duo.stages.publish import (
    DEFAULTS,
    BackboneHead,
    TokensHead,
    backbone_head,
    documents_of,
    full_shape,
    tokens_head,
)
from duo.storage.files import making_folder, replacing
from duo.storage.shared import open_store
from duo.storage.store import Store
from duo.storage.weights import load_weights, weights_digest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedBackbone:
    """A backbone of a leaderboard, with its tokens: nothing is trained or prepared."""

    leaderboard: LeaderboardConfig
    config: BackboneConfig
    data_config: DataConfig
    pinned: Sequence[int] = ()

    @property
    def store(self) -> Store:
        """The leaderboard."""
        return open_store(self.leaderboard.store)

    @property
    def published(self) -> str:
        """Its digest."""
        assert self.leaderboard.backbone
        return self.leaderboard.backbone

    @property
    def train_tokens(self) -> int:
        """Tokens it was trained on, as its maker says."""
        return backbone_head(self.store, self.published).about.train_tokens

    def open_data(self, cache: Path) -> TextData:
        """The tokens that were published with it; raises ValueError where they cannot be fetched."""
        log.info("data  published tokens, kept in %s", cache / "data")
        tokens = backbone_head(self.store, self.published).tokens
        folder = fetch_tokens(self.store, tokens, self.data_config.tokens, cache)
        data = TextData(self.data_config, self.config.vocabulary, cache, folder)
        data.setup()
        return data

    def identity(self, data: TextData) -> str:
        """Its digest, which covers its tokens."""
        return self.published

    def is_made(self, data: TextData) -> bool:
        """It is: somebody published it."""
        return True

    def train_or_load(self, data: TextData, device: torch.device) -> Made[Backbone]:
        """The backbone, fetched if the data's cache lacks it.

        Raises:
            ValueError: it is not there, was changed, or has another shape than the recipe's.
        """
        folder, head = fetch_backbone(self.store, self.published, self.config, data.cache)
        log.info("stage 1  using the published backbone %s", self.published[:12])
        backbone, weights = Backbone(self.config).pin(self.pinned), folder / "backbone.safetensors"
        load_weights(backbone, weights)
        if weights_digest(backbone) != head.weights:
            raise ValueError(f"{weights} is not the published backbone: delete it to fetch it again")
        # the board shows what the head says, so it must be so
        if (parameters := sum(backbone.parameter_counts().values())) != head.parameters:
            raise ValueError(f"backbones/{self.published[:12]} says {head.parameters} parameters, it has {parameters}")
        return Made(backbone.to(device), folder, head.weights)


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
            tokenizer, packed = _unpack(store, digest, head)
            sizes = {name: len(rows) for name, rows in packed.items()}
            # the store vouches for the files, not for what the head says of them
            if digests_of(tokenizer, packed)._asdict() != head.digests or sizes != head.splits:
                raise ValueError(f"tokens/{digest[:12]} are not those that their tokens.json names")
            with making_folder(folder) as half_done:
                write(half_done, tokenizer, packed)
    return folder


def fetch_backbone(store: Store, digest: str, config: BackboneConfig, cache: Path) -> tuple[Path, BackboneHead]:
    """The folder with `backbone.safetensors` of a published backbone, and what is told of it.

    Raises:
        ValueError: the backbone is missing or was changed, or has another shape than `config`.
    """
    head = backbone_head(store, digest)
    # what a head leaves out is the default
    ours, theirs = full_shape(config), DEFAULTS | head.config
    other = {key: value for key, value in theirs.items() if ours.get(key) != value}
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


def open_published(store: Store, digest: str) -> tuple[Backbone, str]:
    """A published backbone of whatever shape, whole and frozen, in memory alone; and the digest of its tokenizer.

    Raises:
        ValueError: it is not there, or was changed.
    """
    head = backbone_head(store, digest)
    with torch.device("meta"):  # first weights would be drawn from torch's generator, which is not ours here
        backbone = Backbone(BackboneConfig(**head.config))  # type: ignore[arg-type]
    try:
        weights = load_tensors(store.file("backbones", digest, "weights.safetensors", to_builtins(head)))
        backbone.load_state_dict(weights, assign=True)
    except Exception as error:  # safetensors and torch have exceptions of their own
        raise ValueError(f"backbones/{digest[:12]} cannot be read: {error}") from error
    if weights_digest(backbone) != head.weights:
        raise ValueError(f"backbones/{digest[:12]} holds other weights than its head says")
    return backbone.eval().requires_grad_(False), tokenizer_digest(open_tokens(store, digest)[0])


def open_tokens(store: Store, digest: str) -> tuple[Tokenizer, int]:
    """The tokenizer of a published backbone, and the tokens of the sequences that it was trained on."""
    tokens = backbone_head(store, digest).tokens
    head = tokens_head(store, tokens)
    return literal(_read_tokenizer(store, tokens, to_builtins(head))), head.length


def _read_tokenizer(store: Store, digest: str, told: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(store.file("tokens", digest, "tokenizer.json", told).decode())


def _unpack(store: Store, digest: str, head: TokensHead) -> tuple[Tokenizer, dict[str, list[Packed]]]:
    told = to_builtins(head)
    try:
        tokenizer = _read_tokenizer(store, digest, told)
        arrays = load(store.file("tokens", digest, "tokens.safetensors", told))
        splits = {name: pair_documents(tokens, documents_of(head, name)) for name, tokens in arrays.items()}
    except Exception as error:  # tokenizers and safetensors have exceptions of their own
        raise ValueError(f"tokens/{digest[:12]} cannot be read: {error}") from error
    return tokenizer, splits
