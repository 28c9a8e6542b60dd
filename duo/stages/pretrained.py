"""A backbone that begins as a pretrained model: its first weights, and its tokenizer."""

from __future__ import annotations

from dataclasses import replace

from duo.backbone import Backbone
from duo.backbone.pretrained import find_folder, read_backbone
from duo.data.config import DataConfig
from duo.data.tokenizer import read_tokenizer
from duo.recipe.sections import SeededBackboneConfig


def first_weights(config: SeededBackboneConfig) -> Backbone:
    """A backbone before stage 1: drawn from torch's generator, or a model's with small FFNs so drawn."""
    if config.pretrained is None:
        return Backbone(config)
    return read_backbone(find_folder(config.pretrained), config)


def with_tokenizer(data: DataConfig, config: SeededBackboneConfig) -> DataConfig:
    """The data's settings, in which a pretrained model's own tokenizer stands where none is named.

    Raises:
        ValueError: another tokenizer is named than that which the model was trained with. A model that has none is
            taken to be trained with what is named.
    """
    model = config.pretrained
    if not model:
        return data
    if data.tokenizer and (find_folder(model) / "tokenizer.json").is_file():
        theirs = read_tokenizer(model, config.vocabulary, "backbone.pretrained").get_vocab()
        ours = read_tokenizer(data.tokenizer, config.vocabulary, "data.tokenizer").get_vocab()
        if theirs != ours:
            raise ValueError(
                f"backbone.pretrained={model} reads the {len(theirs):,} tokens of its tokenizer.json, and "
                f"data.tokenizer={data.tokenizer} has {len(ours):,} of its own: its losses would mean nothing; leave "
                "data.tokenizer out"
            )
    return replace(data, tokenizer=data.tokenizer or model)
