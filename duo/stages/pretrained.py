"""A backbone that begins as a pretrained model: its first weights, and whether the tokens are the model's."""

from __future__ import annotations

import json

from tokenizers import Tokenizer

from duo.backbone import Backbone
from duo.backbone.pretrained import find_folder, find_json, read_backbone
from duo.data.datamodule import TextData
from duo.data.tokenizer import literal, tokenizer_digest
from duo.recipe.sections import SeededBackboneConfig


def first_weights(config: SeededBackboneConfig) -> Backbone:
    """A backbone before stage 1: drawn from torch's generator, or a model's with small FFNs so drawn."""
    if config.pretrained is None:
        return Backbone(config)
    return read_backbone(find_folder(config.pretrained), config)


def read_tokenizer(model: str) -> Tokenizer:
    """The tokenizer of a model; raises ValueError where there is none, or it cannot be read."""
    told = find_json(model, "tokenizer.json")
    try:
        return literal(Tokenizer.from_str(json.dumps(told)))
    except Exception as error:  # tokenizers has exceptions of its own
        raise ValueError(f"backbone.pretrained={model}: tokenizer.json cannot be read: {error}") from error


def check_tokens(model: str, theirs: Tokenizer, data: TextData) -> None:
    """Raises ValueError where the data's tokens are not those that the model was trained on."""
    ours = data.tokenizer
    if tokenizer_digest(theirs) != tokenizer_digest(ours):
        raise ValueError(
            f"backbone.pretrained={model} reads the {theirs.get_vocab_size():,} tokens of its tokenizer.json, and the "
            f"tokenizer of this recipe's data has {ours.get_vocab_size():,} of its own: its losses would mean nothing; "
            "give the documents whose tokenizer the model was trained with"
        )
