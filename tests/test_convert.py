"""`python -m duo.convert`: all big is what transformers computes without duo; a routed model goes there and back."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from conftest import random_tokens
from safetensors.torch import load_file
from test_pretrained import MODELS
from tokenizers.processors import TemplateProcessing
from toy_pretrained import logits_of, read, saved
from toy_tokenizers import sentencepiece

from duo import Backbone, BackboneConfig, Budget, Spec
from duo.backbone.pretrained import write_model
from duo.backbone.pretrained.write import model_config
from duo.convert import main
from duo.data.tokenizer import read_tokenizer
from duo.inference import Sampling, generate
from duo.inference.huggingface import DuoConfig, DuoForCausalLM
from duo.routing import registry
from duo.stages import export

transformers = pytest.importorskip("transformers")
SHAPE = BackboneConfig(layers=3, width=16, heads=2, big=32, small=4, vocabulary=330, positions=64)


def loaded(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("name", MODELS)
def test_all_big_is_a_plain_model_with_equal_logits(name, tmp_path):
    kind, changes = MODELS[name]
    saved(tmp_path, kind, **changes)
    backbone, tokens_BT, out = read(tmp_path), random_tokens(2, 20), tmp_path / "out"
    out.mkdir()
    write_model(out, backbone, {})
    model = loaded(out)
    kind = "Llama" if name == "mistral, no window" else kind  # which computes the same
    assert type(model).__name__ == f"{kind}ForCausalLM"
    with torch.no_grad():
        found = model(tokens_BT).logits
    assert (found - logits_of(backbone, tokens_BT)).abs().max() < 1e-5
    again = read(out)
    for name, value in backbone.state_dict().items():
        assert "ffn.small" in name or torch.equal(again.state_dict()[name], value)


def test_what_no_family_computes_is_refused_by_name():
    for change, said in (
        ({"qk_norm": True, "ffn_bias": True}, "ffn_biased=True"),
        ({"qk_norm": True, "unrotated": [1]}, r"unrotated=\[1\]"),
        ({"attention_bias": "qkv", "qk_norm": True}, "biased=qkv"),
        ({"family": "opt", "norm_epsilon": 1e-6}, "norm_epsilon=1e-06"),
        ({"family": "opt", "ffn_bias": False}, "biased"),
    ):
        with pytest.raises(ValueError, match=rf"backbone\.{said}"):
            model_config(replace(SHAPE, **change))


def test_a_tokenizer_goes_out_with_what_begins_and_ends_its_texts(tmp_path):
    tokenizer = sentencepiece()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    export.write_tokenizer(tmp_path, tokenizer, 64)
    fast = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert (fast.bos_token, fast.eos_token, fast.model_max_length) == ("<s>", "</s>", 64)
    assert export._special(tokenizer) == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    assert fast("the words").input_ids == tokenizer.encode("the words").ids
    again = read_tokenizer(str(tmp_path), 512, "data.tokenizer")
    assert again.to_str() == tokenizer.to_str()


def parts(name="softmax_budget", **options):
    torch.manual_seed(1)
    backbone = Backbone(SHAPE)
    router = registry.build(name, Spec(3, 16, Budget(1).of(3)), options)
    with torch.no_grad():
        for parameter in [*backbone.parameters(), *router.parameters()]:
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return backbone.eval(), router.eval()


def config(name="softmax_budget", **options):
    return DuoConfig(asdict(SHAPE), {"name": name} | options, asdict(Budget(1)), seed=3)


@pytest.mark.parametrize("name", ["softmax_budget", "random", "any_budget", "ngram_budget", "fixed_best"])
def test_a_routed_model_goes_there_and_back_bit_for_bit(name, tmp_path):
    backbone, router = parts(name)
    DuoForCausalLM(config(name), backbone, router).save_pretrained(tmp_path / "one")
    model = loaded(tmp_path / "one")
    assert isinstance(model, DuoForCausalLM)
    for ours, theirs in ((backbone, model.backbone), (router, model.router)):
        assert {**ours.state_dict()}.keys() == {**theirs.state_dict()}.keys()
        assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
        buffers = dict(theirs.named_buffers())
        assert all(torch.equal(value, buffers[name]) for name, value in ours.named_buffers())
    model.save_pretrained(tmp_path / "two")
    names = ("config.json", "model.safetensors")
    one, two = ([(tmp_path / folder / name).read_bytes() for name in names] for folder in ("one", "two"))
    assert one == two
    assert {path.suffix for path in (tmp_path / "one").iterdir()} == {".json", ".safetensors"}


def test_it_generates_under_its_router(tmp_path):
    backbone, router = parts()
    model = DuoForCausalLM(config(), backbone, router)
    prompts = [[5, 6, 7, 8], [9, 10]]
    ours = generate(backbone, router, prompts, 9, Sampling(temperature=0), seed=3)
    tokens_BT = torch.tensor([prompts[0], [0, 0, *prompts[1]]])
    mask_BT = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    told = {"attention_mask": mask_BT, "max_new_tokens": 9, "do_sample": False, "pad_token_id": 0}
    for cached in (True, False):
        theirs = model.generate(tokens_BT, use_cache=cached, **told)[:, 4:]
        assert theirs.tolist() == [one.tokens for one in ours]
    big = DuoForCausalLM(config("fixed", pattern=[2, 2, 2]), backbone, registry.build("fixed", router.spec, {"pattern": [2, 2, 2]}))  # fmt: skip  # noqa: E501
    assert big.generate(tokens_BT, **told)[:, 4:].tolist() != theirs.tolist()
    found = big(tokens_BT[:1], labels=tokens_BT[:1])
    assert torch.allclose(found.logits, logits_of(backbone, tokens_BT[:1]), atol=1e-5)
    assert found.loss > 0


def test_while_it_generates_the_last_token_alone_gets_logits(monkeypatch):
    model, shapes = DuoForCausalLM(config(), *parts()), []
    forward = model.forward

    def noted(*tokens, logits_to_keep=0, **more):  # transformers looks for the argument by its name
        found = forward(*tokens, logits_to_keep=logits_to_keep, **more)
        shapes.append(found.logits.shape[:2])
        return found

    monkeypatch.setattr(model, "forward", noted)
    model.generate(random_tokens(2, 6), max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert shapes == [(2, 1)] * 3
    labels_BT = random_tokens(2, 6)
    assert model(labels_BT, labels=labels_BT, logits_to_keep=1).logits.shape[:2] == (2, 6)


def test_what_stands_behind_a_token_moves_nothing_of_it():
    model = DuoForCausalLM(config(), *parts())
    tokens_BT = random_tokens(1, 12)
    padded_BT = torch.cat((tokens_BT, torch.zeros(1, 3, dtype=torch.long)), 1)
    mask_BT = (torch.arange(15) < 12).long()[None]
    assert torch.allclose(model(padded_BT, mask_BT).logits[:, :12], model(tokens_BT).logits, atol=1e-6)


@pytest.mark.long
def test_transformers_knows_the_model_whichever_is_imported_first(tmp_path):
    DuoForCausalLM(config(), *parts()).save_pretrained(tmp_path)
    code = f"""
import {{}}
import sys
assert {{}}
from transformers import AutoModelForCausalLM
print(type(AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})).__module__)
"""
    orders = {
        "duo": "'transformers' not in sys.modules", "transformers, duo": "True", "duo.inference.huggingface": "True",
    }  # fmt: skip
    for first, said in orders.items():
        done = subprocess.run([sys.executable, "-c", code.format(first, said)], capture_output=True, text=True)
        assert done.stdout.strip() == "duo.inference.huggingface", done.stderr


def test_a_run_becomes_folders_that_transformers_loads(finished, tmp_path, capsys):
    run = finished / "run"
    plain, routed = tmp_path / "plain", tmp_path / "routed"
    assert main([str(run), str(plain)]) == 0, capsys.readouterr()
    assert main([str(run), str(routed), "--routed"]) == 0, capsys.readouterr()
    theirs, ours = loaded(plain), loaded(routed)
    weights = load_file(run / "backbone.safetensors")
    assert all(torch.equal(ours.backbone.state_dict()[name], value.float()) for name, value in weights.items())
    tokens_BT = random_tokens(2, 16)
    assert (theirs(tokens_BT).logits - logits_of(ours.backbone, tokens_BT)).abs().max() < 1e-5
    tokenizer = transformers.AutoTokenizer.from_pretrained(routed)
    assert tokenizer.decode(tokenizer("some words, naïve").input_ids) == "some words, naïve"
    assert json.loads((routed / "config.json").read_text())["eos_token_id"] == tokenizer.eos_token_id
    capsys.readouterr()
    assert main([str(run), str(plain)]) == 1
    assert "holds something already: give a new or empty folder" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "new")]) == 1
    assert main([str(run)]) == 2
    assert main(["--help"]) == 0


def test_a_folder_that_is_not_finished_is_not_left_behind(finished, tmp_path, monkeypatch, capsys):
    def fail(folder, *given):
        (folder / "config.json").touch()
        raise OSError(28, "No space left on device", str(folder / "model.safetensors"))

    monkeypatch.setattr(export, "write_plain", fail)
    folder = tmp_path / "llama-3.1"
    folder.mkdir()
    assert main([str(finished / "run"), str(folder)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not [*folder.iterdir()]
    assert [*tmp_path.iterdir()] == [folder]


def test_without_transformers_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"--routed needs transformers: pip install 'duo-llm\[hf\]'"):
        export.check_target(tmp_path / "new", routed=True)
    export.check_target(tmp_path / "new", routed=False)
