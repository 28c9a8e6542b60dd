"""What a model's folder says: every field read, passed over or refused by name, and bad folders in one line."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import random_tokens
from safetensors.torch import load_file, save_file
from toy_pretrained import OPT, edit, logits_of, read, saved

from duo import BackboneConfig
from duo.backbone.pretrained import find_folder, find_json


@pytest.fixture
def copy(llama, tmp_path):
    for path in llama[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


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


def test_the_older_spelling_says_the_same(copy, llama):
    tokens_BT = random_tokens(1, 20)
    scaling = {"type": "linear", "factor": 4.0}
    edit(copy, rope_parameters={"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}, dtype="float32")
    new = logits_of(read(copy), tokens_BT)
    edit(copy, rope_parameters=..., rope_theta=100.0, rope_scaling=scaling, dtype=..., torch_dtype="float32")
    torch.manual_seed(0)
    assert torch.equal(logits_of(read(copy), tokens_BT), new)
    assert not torch.allclose(new, llama[1](tokens_BT).logits, atol=1e-2)


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
