"""Models that transformers saves, as backbones: equal logits, every field read or refused, bad folders in one line."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import random_tokens
from safetensors.torch import load_file, save_file
from test_backbone import all_big
from test_flops import counted

from duo import BackboneConfig
from duo.backbone.flops import run_flops
from duo.backbone.pretrained import find_folder, find_json, read_backbone, shape_of_model

transformers = pytest.importorskip("transformers")
SIZES = {
    "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": None, "bos_token_id": None,
    "eos_token_id": None,
}  # fmt: skip
OPT = {"ffn_dim": 24, "num_key_value_heads": None, "intermediate_size": None}
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


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """The folder of a plain Llama, and what it says of some tokens."""
    folder = tmp_path_factory.mktemp("llama")
    return folder, saved(folder, "Llama")


@pytest.fixture
def copy(llama, tmp_path):
    for path in llama[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


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


def test_the_older_spelling_says_the_same(copy, llama):
    tokens_BT = random_tokens(1, 20)
    scaling = {"type": "linear", "factor": 4.0}
    edit(copy, rope_parameters={"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}, dtype="float32")
    new = logits_of(read(copy), tokens_BT)
    edit(copy, rope_parameters=..., rope_theta=100.0, rope_scaling=scaling, dtype=..., torch_dtype="float32")
    torch.manual_seed(0)
    assert torch.equal(logits_of(read(copy), tokens_BT), new)
    assert not torch.allclose(new, llama[1](tokens_BT).logits, atol=1e-2)


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


def test_fields_that_say_nothing_of_the_logits_are_passed_over(copy, llama):
    tokens_BT = random_tokens(1, 12)
    whole = json.loads(llama[1].config.to_json_string(use_diff=False))
    # what version 4 wrote with `use_diff=False`, and what Qwen2.5's, Vicuna's and others' files say besides
    older = {
        "use_mrope": False, "tokenizer_class": "LlamaTokenizer", "max_sequence_length": 2048, "use_bfloat16": False,
        "pruned_heads": {}, "tie_encoder_decoder": False, "num_beams": 1, "bad_words_ids": None, "is_decoder": False,
    }  # fmt: skip
    edit(copy, **whole | older)
    assert (logits_of(read(copy), tokens_BT) - llama[1](tokens_BT).logits).abs().max() < 1e-5


def test_one_file_of_weights_is_read_before_an_index_beside_it(copy, llama):
    (copy / "model.safetensors.index.json").write_text('{"weight_map": {"model.norm.weight": "gone.safetensors"}}')
    tokens_BT = random_tokens(1, 12)
    assert (logits_of(read(copy), tokens_BT) - llama[1](tokens_BT).logits).abs().max() < 1e-5


LLAMA_REFUSED = {
    "hidden_act": "gelu",
    "model_type": "gemma",
    "architectures": ["LlamaForSequenceClassification"],
    "partial_rotary_factor": 0.5,
    "rope_interleaved": True,
    "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0,
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.2,
    "logits_scaling": 8.0,
    "sliding_window": 8,
    "use_sliding_window": True,
    "no_rope_layers": [1, 0],
    "layer_types": ["chunked_attention"],
    "query_pre_attn_scalar": 256,
    "quantization_config": {"bits": 4},
    "is_encoder_decoder": True,
    "add_cross_attention": True,
    "something_new": 1,
    "attention_bias": "yes",
    "mlp_bias": 1,
    "num_hidden_layers": 0,
    "vocab_size": 2.5,
    "rms_norm_eps": "small",
    "rope_parameters": ["default"],
    "rope_scaling": {"rope_type": "linear", "factor": 2.0},  # beside rope_parameters
    "use_mrope": True,
    "pruned_heads": {"0": [1]},
    "tie_word_embeddings": None,
}
ROPE_REFUSED = [
    ({"rope_type": "yarn", "factor": 4.0}, 'rope_type="yarn"'),
    ({"rope_type": "dynamic", "factor": 4.0}, 'rope_type="dynamic"'),
    ({"rope_type": "longrope"}, 'rope_type="longrope"'),
    ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    ({"rope_type": "linear", "factor": 2.0, "attention_factor": 0.5}, "attention_factor=0.5"),
    ({"full_attention": {"rope_type": "default"}}, "full_attention="),
]
OTHERS_REFUSED = [
    ("OPT", {"activation_function": "gelu"}, 'activation_function="gelu"'),
    ("OPT", {"do_layer_norm_before": False}, "do_layer_norm_before=false"),
    ("OPT", {"_remove_final_layer_norm": True}, "_remove_final_layer_norm=true"),
    ("OPT", {"word_embed_proj_dim": 8}, "word_embed_proj_dim=8"),
    ("OPT", {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine=false"),
    ("Qwen2", {"layer_types": ["full_attention", "linear_attention"]}, 'layer_types="linear_attention"'),
    ("Qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, 'layer_types="sliding_attention"'),
    ("SmolLM3", {"no_rope_layers": [1]}, r"no_rope_layers=\[1\]"),
]


@pytest.mark.parametrize("field", LLAMA_REFUSED)
def test_a_field_that_changes_the_logits_is_refused_by_name(field, copy):
    edit(copy, **{field: LLAMA_REFUSED[field]})
    with pytest.raises(ValueError, match=rf"config\.json says {field}=.*: "):
        read(copy)


def test_an_architecture_that_is_no_list_is_read_whole(copy):
    edit(copy, architectures="LlamaForCausalLM")
    read(copy)
    edit(copy, architectures="LlamaModel")
    with pytest.raises(ValueError, match=r'config\.json says architectures="LlamaModel": give'):
        read(copy)


@pytest.mark.parametrize(("rope", "said"), ROPE_REFUSED)
def test_other_rotary_positions_are_refused_by_name(rope, said, copy):
    edit(copy, rope_parameters=rope)
    with pytest.raises(ValueError, match=rf"says rope_parameters\.{said}"):
        read(copy)


@pytest.mark.parametrize(("kind", "changes", "said"), OTHERS_REFUSED)
def test_other_families_refuse_their_own_fields(kind, changes, said, tmp_path):
    saved(tmp_path, kind, **(OPT if kind == "OPT" else {}))
    edit(tmp_path, **changes)
    with pytest.raises(ValueError, match=rf"config\.json says {said}"):
        read(tmp_path)


def test_a_folder_that_does_not_hold_a_model_says_what_is_wrong(copy):
    weights = copy / "model.safetensors"
    tensors = load_file(weights)

    def holding(change):
        save_file(tensors | {k: v for k, v in change.items() if v is not None}, weights)
        if gone := [name for name, value in change.items() if value is None]:
            save_file({name: value for name, value in tensors.items() if name not in gone}, weights)

    for change, said in (
        ({"model.norm.weight": None}, r"lacks model\.norm\.weight"),
        ({"model.layers.0.mlp.up_proj.bias": torch.zeros(24)}, r"beyond what.* model\.layers\.0\.mlp\.up_proj\.bias"),
        ({"model.norm.weight": torch.zeros(5)}, r": model\.norm\.weight has the shape \[5\], config\.json says \[16\]"),
        ({"model.norm.weight": torch.zeros(16, dtype=torch.int8)}, r"model\.norm\.weight is torch\.int8"),
    ):
        holding(change)
        with pytest.raises(ValueError, match=said):
            read(copy)
    holding({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(2)})  # old models have it, and it says nothing
    read(copy)
    edit(copy, tie_word_embeddings=True)
    with pytest.raises(ValueError, match="tie_word_embeddings=true: say false"):
        read(copy)
    weights.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="cannot be read"):
        read(copy)
    weights.rename(copy / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin, a pickle.*save_pretrained"):
        read(copy)
    (copy / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match="holds no weights"):
        read(copy)
    (copy / "model.safetensors.index.json").write_text('{"weight_map": {"model.norm.weight": "../x.safetensors"}}')
    with pytest.raises(ValueError, match="no safetensors file of the folder"):
        read(copy)
    (copy / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json cannot be read \(it must hold keys\)"):
        read(copy)
    (copy / "config.json").unlink()
    with pytest.raises(ValueError, match="holds no config.json"):
        read(copy)


def test_a_name_that_is_not_here_says_so_in_one_line(tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for look in (lambda name: find_json(name, "config.json"), find_folder):
        with pytest.raises(ValueError, match="owner/model is no folder here, and cannot be had from the hub") as error:
            look("owner/model")
        assert "\n" not in str(error.value)
        with pytest.raises(ValueError, match="is no folder: give one that save_pretrained wrote"):
            look(str(tmp_path / "nowhere"))


def test_shapes_that_cannot_be_are_refused():
    config = BackboneConfig(width=16, heads=4)
    for change in (
        {"head_dim": 3}, {"head_dim": 0}, {"attention_bias": "some"}, {"unrotated": [12]}, {"rotary_scaling": "yarn"},
        {"rotary_factor": 0.0}, {"rotary_low": 5.0, "rotary_scaling": "llama3"}, {"window": 0},
        {"family": "opt", "unrotated": [1]},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"backbone\.{next(iter(change))}="):
            replace(config, **change)
