"""Models that transformers saves, as backbones: equal logits."""

import pytest
import torch
from conftest import random_tokens
from test_backbone import all_big
from test_flops import counted
from toy_pretrained import OPT, edit, logits_of, read, saved

from duo.backbone.flops import run_flops

transformers = pytest.importorskip("transformers")
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
MODELS = {
    "llama": ("Llama", {}),
    "llama, tied, as many keys as queries": ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama, heads wider than their share": ("Llama", {"head_dim": 8}),
    "llama, biases of the attention": ("Llama", {"attention_bias": True}),
    "llama, biases of the FFNs": ("Llama", {"mlp_bias": True}),
    "llama, another base": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "llama, linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}}),
    "llama, llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "llama, another epsilon": ("Llama", {"rms_norm_eps": 0.1}),
    "mistral": ("Mistral", {"sliding_window": 20}),
    "mistral, no window": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2, a window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
    "qwen3, biases": ("Qwen3", {"attention_bias": True, "head_dim": 4, "tie_word_embeddings": True}),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 0]}),
    "smollm3, an interval": ("SmolLM3", {"no_rope_layer_interval": 2, "tie_word_embeddings": False}),
    "opt": ("OPT", OPT),
    "opt, no biases, untied": ("OPT", OPT | {"enable_bias": False, "tie_word_embeddings": False}),
}


@pytest.mark.parametrize("name", MODELS)
def test_all_big_gives_the_logits_of_the_model(name, tmp_path):
    kind, changes = MODELS[name]
    theirs, tokens_BT = saved(tmp_path, kind, **changes), random_tokens(2, 20)
    backbone = read(tmp_path)
    with torch.no_grad():
        expected = theirs(tokens_BT).logits
    assert expected.std() > 0.1
    assert (logits_of(backbone, tokens_BT) - expected).abs().max() < 1e-5
    # and what it costs is what torch counts
    run, torchs = counted(backbone, tokens_BT, all_big)
    config = backbone.config
    masked_half = 2 * 2 * 4 * config.attention_width * (20 * 20 - 20 * 21 // 2)  # sequences, layers, FLOPs a key, keys
    assert run_flops(config, run.weight_BTLM, torch.arange(20).expand(2, -1)).sum() + masked_half == torchs


def test_a_model_in_16_bits_and_several_files_is_the_same_in_32(llama, tmp_path):
    model = transformers.LlamaForCausalLM.from_pretrained(llama[0], dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    backbone, tokens_BT = read(tmp_path), random_tokens(1, 12)
    assert all(parameter.dtype == torch.float32 for parameter in backbone.parameters())
    assert (logits_of(backbone, tokens_BT) - model.float()(tokens_BT).logits).abs().max() < 1e-5


def test_small_ffns_are_drawn_from_the_seed_as_those_of_a_new_backbone(llama):
    torch.manual_seed(3)
    one = read(llama[0], small=400)
    torch.manual_seed(3)
    two = read(llama[0], small=400)
    for layer in range(2):
        small = one.block(layer).ffn.small
        assert torch.equal(small.up.weight, two.block(layer).ffn.small.up.weight)
        assert small.up.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert small.down.weight.std().item() == pytest.approx(0.01, rel=0.1)  # two layers
    assert all(parameter.requires_grad and parameter.device.type == "cpu" for parameter in one.parameters())


def test_a_sequence_beyond_the_window_is_refused(tmp_path):
    saved(tmp_path, "Mistral", sliding_window=20)
    with pytest.raises(ValueError, match=r"21 tokens is longer than backbone\.window=20"):
        logits_of(read(tmp_path), random_tokens(1, 21))
    edit(tmp_path, sliding_window=...)
    assert read(tmp_path).config.window == 4096  # as transformers reads a config that is silent


@pytest.mark.parametrize(
    ("kind", "told", "window"),
    [
        ("Qwen2", {"max_window_layers": 2, "sliding_window": 20}, None),  # so many layers in front see everything
        ("Qwen2", {"max_window_layers": 1, "sliding_window": 20}, 20),
        ("Qwen3", {"max_window_layers": 0, "sliding_window": ...}, 4096),
        ("SmolLM3", {"no_rope_layers": [1, 0], "sliding_window": 20}, 20),  # layers without rotary positions slide
        ("SmolLM3", {"no_rope_layers": [1, 1], "sliding_window": 20}, None),
    ],
)
def test_which_layers_slide_is_as_in_transformers_where_no_layer_says(kind, told, window, tmp_path):
    saved(tmp_path, kind, **({"head_dim": 4} if kind == "Qwen3" else {}))
    edit(tmp_path, **{"use_sliding_window": True, "layer_types": ...} | told)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert ("sliding_attention" in config.layer_types) == (window is not None)
    assert read(tmp_path).config.window == window == (config.sliding_window if window else None)
