"""Tiny models that transformers saves, and the backbones that they become."""

import json

import pytest
import torch
from test_backbone import all_big

from duo import BackboneConfig
from duo.backbone.pretrained import find_folder, find_json, read_backbone, shape_of_model

transformers = pytest.importorskip("transformers")
SIZES = {
    "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": None, "bos_token_id": None,
    "eos_token_id": None,
}  # fmt: skip
OPT = {"ffn_dim": 24, "num_key_value_heads": None, "intermediate_size": None}


def saved(folder, kind, **changes):
    """A tiny model whose weights are large enough that every part of it matters, as transformers saves it."""
    torch.manual_seed(0)
    settings = {key: value for key, value in (SIZES | changes).items() if key not in OPT or value is not None}
    config = getattr(transformers, f"{kind}Config")(**settings)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    return model


def read(folder, small=4):
    config = BackboneConfig(small=small, **shape_of_model(find_json(str(folder), "config.json"), str(folder)))
    return read_backbone(find_folder(str(folder)), config)


def edit(folder, **changes):
    """Changes config.json; a value of ... takes a field out."""
    told = json.loads((folder / "config.json").read_text()) | changes
    told = {key: value for key, value in told.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(told))


def logits_of(backbone, tokens_BT):
    with torch.no_grad():
        return backbone(tokens_BT, all_big).logits_BTV
