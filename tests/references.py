"""The backbone computed independently: by transformers, and token by token with plain products."""

import math

import pytest
import torch
from torch.nn import functional as F


def hugging_face(backbone):
    """The same weights in transformers' own model; only the big FFNs have a counterpart."""
    transformers = pytest.importorskip("transformers")
    config, llama = backbone.config, backbone.config.family == "llama"
    shared = {
        "vocab_size": config.vocabulary, "hidden_size": config.width, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "tie_word_embeddings": config.tied,
        "max_position_embeddings": config.positions,
        "attn_implementation": "eager",
    }  # fmt: skip
    if llama:
        theirs = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                **shared,
                intermediate_size=config.big,
                num_key_value_heads=config.kv_heads,
                rms_norm_eps=config.norm_epsilon,
                rope_parameters={"rope_type": "default", "rope_theta": config.rotary_base},
            )  # fmt: skip
        )
    else:
        theirs = transformers.OPTForCausalLM(
            transformers.OPTConfig(**shared, ffn_dim=config.big, word_embed_proj_dim=config.width, dropout=0.0)
        )
    names = {
        "attention.query": "self_attn.q_proj", "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.output": "self_attn.o_proj" if llama else "self_attn.out_proj",
        "attention_norm": "input_layernorm" if llama else "self_attn_layer_norm",
        "ffn_norm": "post_attention_layernorm" if llama else "final_layer_norm",
        "ffn.big.gate": "mlp.gate_proj", "ffn.big.up": "mlp.up_proj" if llama else "fc1",
        "ffn.big.down": "mlp.down_proj" if llama else "fc2",
    }  # fmt: skip
    stem = "model" if llama else "model.decoder"
    state = {}
    for name, value in backbone.state_dict().items():
        if name.startswith("blocks."):
            _, layer, rest = name.split(".", 2)
            part, kind = rest.rsplit(".", 1)
            if part in names:
                state[f"{stem}.layers.{layer}.{names[part]}.{kind}"] = value
        elif name == "position_embedding.weight":  # OPT keeps two unused rows in front
            state[f"{stem}.embed_positions.weight"] = torch.cat((torch.zeros_like(value[:2]), value))
        else:
            rename = {"embedding": f"{stem}.embed_tokens", "norm": f"{stem}.{'norm' if llama else 'final_layer_norm'}"}
            part, kind = name.split(".")
            state[f"{rename.get(part, 'lm_head')}.{kind}"] = value
    if config.tied:
        state["lm_head.weight"] = backbone.embedding.weight
    theirs.load_state_dict(state, strict=True)
    return theirs.eval()


def one_at_a_time(backbone, tokens_T, route_TL):
    """Logits of one sequence, token after token with plain products; shares nothing with the block's code path."""
    config, llama = backbone.config, backbone.config.family == "llama"

    def norm(layer, x):
        if llama:
            return x / (x.pow(2).mean() + config.norm_epsilon).sqrt() * layer.weight
        return (x - x.mean()) / (x.var(unbiased=False) + config.norm_epsilon).sqrt() * layer.weight + layer.bias

    def linear(layer, x):
        return layer.weight @ x + (0 if layer.bias is None else layer.bias)

    def heads(x, position, layer=None, scale=None):
        split = x.view(-1, config.head_width)
        if scale is not None:
            split = torch.stack([norm(scale, head) for head in split])
        if layer is None or layer in config.unrotated or not llama:
            return split
        half = config.head_width // 2
        pairs = torch.complex(split[:, :half], split[:, half:])
        turn = position / config.rotary_factor * config.rotary_base ** (-torch.arange(half) / half)  # default or linear
        turned = pairs * torch.polar(torch.ones(half), turn)
        return torch.cat((turned.real, turned.imag), dim=1)

    def ffn(part, x):
        inner = linear(part.up, x).relu() if part.gate is None else F.silu(linear(part.gate, x)) * linear(part.up, x)
        return linear(part.down, inner)

    keys, values, logits = [[] for _ in backbone.blocks], [[] for _ in backbone.blocks], []
    for position, token in enumerate(tokens_T):
        x = backbone.embedding.weight[token]
        if not llama:
            x = x + backbone.position_embedding.weight[position]
        for layer, block in enumerate(backbone.blocks):
            module, normed = int(route_TL[position, layer]), norm(block.attention_norm, x)
            part = block.attention
            keys[layer].append(heads(linear(part.key, normed), position, layer, part.key_norm))
            values[layer].append(heads(linear(part.value, normed), position))
            if not (config.skip_scope == "block" and module == 0):
                query, mixed = heads(linear(part.query, normed), position, layer, part.query_norm), []
                for head in range(config.heads):
                    group = head // (config.heads // config.kv_heads)
                    scores = torch.stack([query[head] @ key[group] for key in keys[layer]]) / math.sqrt(
                        config.head_width
                    )
                    mixed.append(
                        sum(p * value[group] for p, value in zip(scores.softmax(0), values[layer], strict=True))
                    )
                x = x + linear(block.attention.output, torch.cat(mixed))
            if module:
                x = x + ffn((None, block.ffn.small, block.ffn.big)[module], norm(block.ffn_norm, x))
        head = backbone.embedding.weight if backbone.head is None else backbone.head.weight
        logits.append(head @ norm(backbone.norm, x))
    return torch.stack(logits)
