"""A backbone's big FFNs as a plain model that transformers loads without duo: its config, and its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from duo.backbone.config import BackboneConfig
from duo.backbone.model import Backbone
from duo.backbone.pretrained.families import shape_of_model
from duo.backbone.pretrained.names import SMALL, name_in_model
from duo.backbone.pretrained.read import SINGLE, UNUSED_POSITIONS

Values = dict[str, Any]
ARCHITECTURES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "smollm3": "SmolLM3", "mistral": "Mistral"}


def write_model(folder: Path, backbone: Backbone, more: Values) -> None:
    """Writes config.json and model.safetensors of the model that a backbone is where every token takes all big FFNs.

    Args:
        folder: where to; it exists.
        more: further fields of config.json, such as the numbers of special tokens.

    Raises:
        ValueError: no family of transformers computes what the backbone computes.
    """
    # else a family's own numbers, which may lie outside the vocabulary
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    told = model_config(backbone.config) | special | more
    tensors = {
        name_in_model(name, backbone.config): value.detach().cpu().contiguous()
        for name, value in backbone.state_dict().items()
        if SMALL not in f".{name}"
    }
    if backbone.config.family == "opt":
        name = name_in_model("position_embedding.weight", backbone.config)
        unused_XD = torch.zeros(UNUSED_POSITIONS, backbone.config.width)
        tensors[name] = torch.cat((unused_XD, tensors[name]))
    (folder / "config.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def model_config(config: BackboneConfig) -> Values:
    """The config.json of the family that computes what a backbone's big FFNs compute.

    >>> model_config(BackboneConfig(attention_bias="qkv"))["model_type"]
    'qwen2'

    Raises:
        ValueError: there is no such family.
    """
    told = _opt(config) if config.family == "opt" else _llama(config)
    # a family may leave out, or add, what the backbone has: only what is read again says
    read = BackboneConfig(**shape_of_model(told, "the model"), small=config.small, skip_scope=config.skip_scope)
    for name in ("head_width", "kv_heads", "biased", "ffn_biased", "qk_norm", "unrotated", "rotary_scaling", "window"):
        if getattr(read, name) != getattr(config, name):
            raise ValueError(
                f"backbone.{name}={getattr(config, name)} has no family of transformers beside the backbone's other "
                f"fields ({told['model_type']} says {getattr(read, name)}): convert it with --routed"
            )
    return told


def _llama(config: BackboneConfig) -> Values:
    kind = _kind(config)
    told: Values = {
        "architectures": [f"{ARCHITECTURES[kind]}ForCausalLM"],
        "model_type": kind,
        "hidden_act": "silu",
        "num_hidden_layers": config.layers,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.big,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.positions,
        "tie_word_embeddings": config.tied,
        "rms_norm_eps": config.norm_epsilon,
        "rope_parameters": _rotary(config),
        "dtype": "float32",
    }
    if kind == "llama":
        told["mlp_bias"] = config.ffn_biased
    if kind in ("llama", "qwen3"):
        told["attention_bias"] = config.biased == "all"
    if kind == "smollm3":
        told["no_rope_layers"] = [int(layer not in config.unrotated) for layer in range(config.layers)]
    if kind == "mistral":
        told["sliding_window"] = config.window
    elif config.window:
        told |= {"use_sliding_window": True, "sliding_window": config.window}
        told["layer_types"] = ["sliding_attention"] * config.layers
    return told


def _kind(config: BackboneConfig) -> str:
    """The family that has what the backbone has beyond Llama's block."""
    if config.qk_norm:
        return "qwen3"
    if config.biased == "qkv":
        return "qwen2"
    if config.unrotated:
        return "smollm3"
    return "mistral" if config.window else "llama"


def _rotary(config: BackboneConfig) -> Values:
    kind = "default" if config.rotary_scaling == "none" else config.rotary_scaling
    told: Values = {"rope_type": kind, "rope_theta": config.rotary_base}
    if kind != "default":
        told["factor"] = config.rotary_factor
    if kind == "llama3":
        told |= {"low_freq_factor": config.rotary_low, "high_freq_factor": config.rotary_high}
        told["original_max_position_embeddings"] = config.rotary_positions
    return told


def _opt(config: BackboneConfig) -> Values:
    if config.norm_epsilon != 1e-5:
        raise ValueError(
            f"backbone.norm_epsilon={config.norm_epsilon}: OPT has no field for another than 1e-5: use --routed"
        )
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "activation_function": "relu",
        "do_layer_norm_before": True,
        "enable_bias": config.ffn_biased and config.biased == "all",
        "num_hidden_layers": config.layers,
        "hidden_size": config.width,
        "word_embed_proj_dim": config.width,
        "num_attention_heads": config.heads,
        "ffn_dim": config.big,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.positions,
        "tie_word_embeddings": config.tied,
        "dropout": 0.0,
        "dtype": "float32",
    }
