"""The names of a model's tensors: transformers' for each of ours."""

from __future__ import annotations

from duo.backbone.config import BackboneConfig

LLAMA = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn.big.gate": "mlp.gate_proj",
    "ffn.big.up": "mlp.up_proj",
    "ffn.big.down": "mlp.down_proj",
}
OPT = LLAMA | {
    "attention.output": "self_attn.out_proj",
    "attention_norm": "self_attn_layer_norm",
    "ffn_norm": "final_layer_norm",
    "ffn.big.up": "fc1",
    "ffn.big.down": "fc2",
}
HEAD = "lm_head.weight"
SMALL = ".ffn.small."
DERIVED = ("rotary_emb.inv_freq", "model.decoder.version")
"""Ends of names of tensors that old versions saved, and that say nothing which the config does not."""


def name_in_model(name: str, config: BackboneConfig) -> str:
    """A tensor's name in transformers.

    >>> name_in_model("blocks.3.ffn.big.up.weight", BackboneConfig(family="opt"))
    'model.decoder.layers.3.fc1.weight'
    """
    llama = config.family == "llama"
    stem = "model" if llama else "model.decoder"
    part, kind = name.rsplit(".", 1)
    if part.startswith("blocks."):
        _, layer, rest = part.split(".", 2)
        return f"{stem}.layers.{layer}.{(LLAMA if llama else OPT)[rest]}.{kind}"
    whole = {
        "embedding": f"{stem}.embed_tokens",
        "position_embedding": f"{stem}.embed_positions",
        "norm": f"{stem}.norm" if llama else f"{stem}.final_layer_norm",
        "head": HEAD.removesuffix(".weight"),
    }
    return f"{whole[part]}.{kind}"
