"""What the config.json of each family says of a backbone's shape, as transformers' `configuration_*.py` reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from duo.backbone.pretrained.fields import Fields

Shape = dict[str, Any]
"""Fields of `BackboneConfig`."""


@dataclass(frozen=True)
class Family:
    """What a family does that its config does not say, and its defaults where a config is silent."""

    extra: Callable[[Fields, Shape], Shape]
    """What it has beside Llama's block."""
    tied: bool = False
    key_value_heads: int | None = None
    head_dim: int | None = None
    rotary_base: float = 10000.0


def shape_of_model(values: Mapping[str, Any], model: str) -> Shape:
    """The shape of a model, as fields of `BackboneConfig`, from its whole config.json.

    Args:
        values: of config.json.
        model: what errors call it.

    Raises:
        ValueError: a field says what duo does not compute, or is unknown: it is named with its value.
    """
    fields = Fields(values, model)
    kind = fields.take("model_type")
    if not isinstance(kind, str) or kind not in {*FAMILIES, "opt"}:
        known = ", ".join([*FAMILIES, "opt"])
        raise fields.refusal("model_type", kind, f"duo computes {known} alone: choose another model")
    named = values.get("architectures") or []
    for name in named if isinstance(named, list) else [named]:
        if not str(name).endswith("ForCausalLM"):
            raise fields.refusal("architectures", name, "give a model that ends in ForCausalLM")
    shape = _opt(fields) if kind == "opt" else _llama(fields, FAMILIES[kind])
    fields.end()
    return shape


def _llama(fields: Fields, family: Family) -> Shape:
    """Llama's block, with what the family has beside it."""
    fields.only("hidden_act", ("silu", "swish"))
    heads, width = fields.size("num_attention_heads"), fields.size("hidden_size")
    fields.fill("num_key_value_heads", family.key_value_heads)  # null is another thing: as many as heads
    head_dim = fields.size("head_dim", family.head_dim or max(width // heads, 1))
    shape: Shape = {
        "family": "llama",
        "layers": fields.size("num_hidden_layers"),
        "width": width,
        "heads": heads,
        "key_value_heads": fields.size("num_key_value_heads", heads),
        "head_dim": None if head_dim * heads == width else head_dim,
        "big": fields.size("intermediate_size"),
        "vocabulary": fields.size("vocab_size"),
        "positions": fields.size("max_position_embeddings", 2048),
        "tied": fields.truth("tie_word_embeddings", family.tied),
        "norm_epsilon": fields.number("rms_norm_eps", 1e-6),
    }
    return shape | _rotary(fields, family.rotary_base, shape["positions"]) | family.extra(fields, shape)


def _opt(fields: Fields) -> Shape:
    """OPT's block; its table of positions has two rows in front that no token uses."""
    fields.only("activation_function", ("relu",))
    fields.only("do_layer_norm_before", (True,))
    fields.only("_remove_final_layer_norm", (False,))
    fields.only("layer_norm_elementwise_affine", (True,))
    width, biased = fields.size("hidden_size"), fields.truth("enable_bias", True)
    fields.only("word_embed_proj_dim", (width, None))
    return {
        "family": "opt",
        "layers": fields.size("num_hidden_layers"),
        "width": width,
        "heads": fields.size("num_attention_heads"),
        "big": fields.size("ffn_dim"),
        "vocabulary": fields.size("vocab_size"),
        "positions": fields.size("max_position_embeddings"),
        "tied": fields.truth("tie_word_embeddings", True),
        "norm_epsilon": 1e-5,  # nn.LayerNorm's: the config has no field for it
    } | ({} if biased else {"attention_bias": "none", "ffn_bias": False})


def _rotary(fields: Fields, base: float, positions: int) -> Shape:
    """Rotary positions, in either spelling: `rope_parameters`, or `rope_theta` beside `rope_scaling`."""
    above = fields.number("rope_theta", base)
    new, said = fields.inner("rope_parameters"), fields.take("rope_scaling")
    if new and said:
        raise fields.refusal("rope_scaling", said, "rope_parameters stands beside it: take one of them out")
    rope = new or fields.within("rope_scaling", said) or Fields({}, "")
    kind = rope.take("rope_type") or rope.take("type") or "default"
    rope.take("type")
    if kind not in ("default", "linear", "llama3"):
        raise rope.refusal("rope_type", kind, "duo computes default, linear and llama3 alone: choose another model")
    shape: Shape = {"rotary_base": rope.number("rope_theta", above)}
    shape["rotary_scaling"] = "none" if kind == "default" else kind
    rope.only("partial_rotary_factor", (1, None))
    if kind != "default":
        shape["rotary_factor"] = rope.number("factor")
    if kind == "llama3":
        shape["rotary_low"], shape["rotary_high"] = rope.number("low_freq_factor"), rope.number("high_freq_factor")
        shape["rotary_positions"] = rope.size("original_max_position_embeddings", positions)
    rope.end()
    return shape


def _biases(fields: Fields, _: Shape) -> Shape:
    """Llama's two fields of biases."""
    found: Shape = {"attention_bias": "all"} if fields.truth("attention_bias", False) else {}
    return found | ({"ffn_bias": True} if fields.truth("mlp_bias", False) else {})


def _mistral(fields: Fields, _: Shape) -> Shape:
    fields.fill("sliding_window", 4096)  # null means none
    return {"window": fields.size_or_none("sliding_window")}


def _window(fields: Fields, slides: bool) -> Shape:
    """The window of a family in which each layer may slide or not: within it, all layers see everything.

    Args:
        fields: of the config.
        slides: whether any layer does where `layer_types` is silent.
    """
    used, window = fields.truth("use_sliding_window", False), fields.size_or_none("sliding_window")
    kinds = fields.take("layer_types")
    for kind in kinds or []:
        if kind != "full_attention" and not (kind == "sliding_attention" and used and window):
            raise fields.refusal(
                "layer_types",
                kind,
                "duo computes full attention, and sliding within its window, alone: choose another model",
            )
    slides = slides if kinds is None else "sliding_attention" in kinds
    return {"window": window} if used and window and slides else {}


def _qwen_window(fields: Fields, shape: Shape) -> Shape:
    fields.fill("sliding_window", 4096)
    return _window(fields, slides=shape["layers"] > fields.number("max_window_layers", 28))


def _qwen2(fields: Fields, shape: Shape) -> Shape:
    return _qwen_window(fields, shape) | {"attention_bias": "qkv"}


def _qwen3(fields: Fields, shape: Shape) -> Shape:
    biased = fields.truth("attention_bias", False)
    return _qwen_window(fields, shape) | {"qk_norm": True} | ({"attention_bias": "all"} if biased else {})


def _smollm3(fields: Fields, shape: Shape) -> Shape:
    layers, every = shape["layers"], fields.size("no_rope_layer_interval", 4)
    turned = fields.take("no_rope_layers")  # in spite of its name, 1 where a layer has rotary positions
    if turned is None:
        turned = [int((layer + 1) % every != 0) for layer in range(layers)]
    if not isinstance(turned, list) or len(turned) < layers or not {*turned} <= {0, 1}:
        raise fields.refusal("no_rope_layers", turned, f"it must hold 0 or 1 for each of {layers} layers")
    unrotated = [layer for layer in range(layers) if not turned[layer]]
    fields.take("max_window_layers")  # Qwen's: here the layers without rotary positions slide
    return _window(fields, slides=bool(unrotated)) | _biases(fields, shape) | {"unrotated": unrotated}


FAMILIES = {
    "llama": Family(_biases),
    "mistral": Family(_mistral, key_value_heads=8),
    "qwen2": Family(_qwen2, key_value_heads=32),
    "qwen3": Family(_qwen3, key_value_heads=32, head_dim=128),
    "smollm3": Family(_smollm3, tied=True, key_value_heads=4, rotary_base=2e6),
}
"""Families that share Llama's block, by `model_type`."""
