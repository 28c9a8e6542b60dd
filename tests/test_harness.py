"""DuoLM answers what lm-eval asks as its own adapter of transformers does, however questions are batched."""

import numpy as np
import pytest
import torch
from conftest import toy_backbone
from toy_pretrained import OPT, logits_of, read, saved
from toy_texts import ByPlace, toy_tokenizer
from toy_tokenizers import sentencepiece

from duo import Budget, Spec
from duo.data.tokenizer import read_tokenizer
from duo.routing import registry
from duo.stages import export

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

from duo.inference import Sampling  # noqa: E402
from duo.inference.harness import DuoLM, _sampling  # noqa: E402

TOKENIZER = toy_tokenizer()
BIG = [2, 2, 2]
TEXTS = ["the words of", "and the text's words", "é 🦜 x", "for name in names", ""]
ASKED = [(context, choice) for context in TEXTS for choice in (" the text", " words and words of it", " x")]


def model(router=None, **changes):
    backbone = toy_backbone(vocabulary=330, positions=32).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter, generator=None) * 0.2) if parameter.ndim > 1 else None
    return DuoLM(backbone, router or registry.build("fixed", Spec(3, 16, Budget(3).of(3)), {"pattern": BIG}), TOKENIZER, **changes)  # fmt: skip  # noqa: E501


def instances(kind, asked):
    return [Instance(kind, {}, arguments, number) for number, arguments in enumerate(asked)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """All big here, and as lm-eval's own adapter of transformers has it, on the same weights."""
    torch.manual_seed(0)
    ours, folder = model(batch_size=3), tmp_path_factory.mktemp("plain")
    export.write_model(folder, ours.duo[0], export._special(TOKENIZER))
    export.write_tokenizer(folder, TOKENIZER, 32)
    return ours, HFLM(pretrained=str(folder), device="cpu", batch_size=2)


def test_all_big_answers_as_lm_evals_own_adapter(pair):
    ours, theirs = pair
    long = [("the words of a text, " * 9, " x and the words")]  # longer than the model reads
    asked = instances("loglikelihood", ASKED + long)
    found, expected = ours.loglikelihood(asked), theirs.loglikelihood(asked)
    assert np.std([value for value, _ in expected]) > 1
    for (value, likeliest), (other, theirs_likeliest) in zip(found, expected, strict=True):
        assert abs(value - other) < 1e-3
        assert likeliest == theirs_likeliest
    texts = instances("loglikelihood_rolling", [(text * 4,) for text in TEXTS[:4]])
    assert ours.loglikelihood_rolling(texts) == pytest.approx(theirs.loglikelihood_rolling(texts), abs=1e-3)
    told = {"until": ["z"], "max_gen_toks": 6, "do_sample": False}
    writing = instances("generate_until", [(text, dict(told)) for text in TEXTS[:4]])
    assert ours.generate_until(writing) == theirs.generate_until(writing)


def test_a_model_of_transformers_answers_as_lm_evals_own_adapter_has_it(tmp_path):
    """With a begin of texts that only its folder names, words that decoding joins, and no room beyond its positions."""
    from transformers import PreTrainedTokenizerFast

    saved(tmp_path, "OPT", **OPT | {"vocab_size": 512, "bos_token_id": 1, "eos_token_id": 2})
    fast = PreTrainedTokenizerFast(tokenizer_object=sentencepiece(), bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(tmp_path)
    tokenizer = read_tokenizer(str(tmp_path), 512, "data.tokenizer")
    router = registry.build("fixed", Spec(2, 16, Budget(2).of(2)), {"pattern": [2, 2]})
    ours = DuoLM(read(tmp_path), router, tokenizer, batch_size=4)
    theirs = HFLM(pretrained=str(tmp_path), device="cpu", batch_size=4)
    long = " ".join(f"word{number} of the text" for number in range(9))
    asked = instances("loglikelihood", [*ASKED[3:9], (long, " x"), ("the text", f" {long[:60]}"), ("", " words")])
    found, expected = ours.loglikelihood(asked), theirs.loglikelihood(asked)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-3)
    texts = instances("loglikelihood_rolling", [(text,) for text in ("the words", long)])
    assert ours.loglikelihood_rolling(texts) == pytest.approx(theirs.loglikelihood_rolling(texts), abs=1e-3)
    for told in ({"until": [], "max_new_tokens": 9}, {"until": " w", "max_gen_toks": 9, "do_sample": False}):
        writing = instances("generate_until", [(text, {**told}) for text in TEXTS[:2]])
        assert ours.generate_until(writing) == theirs.generate_until(writing)


def test_a_choice_that_adds_no_token_is_certain():
    ours = model(batch_size=2)
    answers = ours._loglikelihood_tokens([(None, [5, 6], []), (None, [5, 6], [7, 8, 9]), (None, [7], [])])
    assert answers[0] == answers[2] == (0.0, True)
    assert answers[1][0] < 0


@pytest.mark.parametrize("name", ["random", "by place", "softmax_budget"])
def test_batches_and_padding_change_no_answer(name):
    spec = Spec(3, 16, Budget(1).of(3))
    torch.manual_seed(1)
    router = ByPlace(spec) if name == "by place" else registry.build(name, spec, {})
    asked = instances("loglikelihood", ASKED)
    torch.manual_seed(0)
    whole = model(router, batch_size=9).loglikelihood(asked)
    torch.manual_seed(0)
    alone = model(router, batch_size=1)
    single = [alone.loglikelihood([one])[0] for one in reversed(asked)][::-1]
    assert [value for value, _ in whole] == pytest.approx([value for value, _ in single], abs=1e-4)
    torch.manual_seed(0)
    big = model(batch_size=9).loglikelihood(asked)
    assert np.abs(np.subtract(whole, big)).max() > 1e-2  # it does route


def test_an_answer_is_that_of_a_whole_pass_and_a_context_is_read_once(monkeypatch):
    torch.manual_seed(0)
    ours = model(batch_size=2)
    read, reader = [], ours._reader

    def counted(ids):  # noqa: E306
        found = reader(ids)
        whole = found.read
        found.read = lambda tokens: read.append(tuple(tokens.shape)) or whole(tokens)
        return found

    monkeypatch.setattr(ours, "_reader", counted)  # noqa: E305
    context, choices = "the words of", [" the text", " words and words of it", " x"]
    answers = ours.loglikelihood(instances("loglikelihood", [(context, choice) for choice in choices]))
    front = TOKENIZER.encode(context).ids
    assert read[0] == (1, len(front))  # one context, though three ask
    assert len(read) == 2
    for choice, (value, _) in zip(choices, answers, strict=True):
        ids = TOKENIZER.encode(context + choice).ids
        log_TV = logits_of(ours.duo[0], torch.tensor([ids]))[0].log_softmax(-1)
        expected = sum(log_TV[place - 1, ids[place]].item() for place in range(len(front), len(ids)))
        assert value == pytest.approx(expected, abs=1e-4)


def test_a_task_that_keeps_0_likeliest_tokens_draws_among_all():
    assert _sampling({"do_sample": True, "top_k": 0}) == _sampling({"do_sample": True}) == Sampling()
    assert _sampling({"do_sample": False, "top_k": 5}) == Sampling(temperature=0)
