"""Downstream tasks: answers equal those of lm-eval's own adapter, batches change none, differences are paired."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import toy_backbone
from test_pretrained import OPT, logits_of, read, saved
from toy_tasks import SHARED, write_tasks
from toy_texts import ByPlace, toy_tokenizer
from toy_tokenizers import sentencepiece

from duo import Budget, Spec
from duo.data.tokenizer import read_tokenizer
from duo.evaluation.downstream import Accuracy, mean_of, subtract
from duo.recipe import load
from duo.routing import registry
from duo.stages import downstream, export

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


def test_differences_are_of_the_same_questions():
    one, two = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0.0, 0.0, 1.0, 1.0])
    (found,) = subtract({"task": {"acc": one}}, {"task": {"acc": two}})["task"].values()
    assert mean_of(found) == Accuracy(0.25, 0.25)
    apart = np.hypot(mean_of(one).error, mean_of(two).error)
    assert mean_of(found).error < apart
    assert mean_of(np.array([1.0])) == Accuracy(1.0, None)


FILTERS = """filter_list:
- {name: first, filter: [{function: take_first}]}
- {name: lower, filter: [{function: lowercase}, {function: take_first}]}
"""
WORD = """output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: "{{choices[0]}}"
"""


def test_each_metric_is_the_mean_that_lm_eval_makes_of_it(tmp_path):
    """Filters stand apart, bits of a byte are a quotient of sums, and a perplexity is no mean over questions."""
    from lm_eval.evaluator import evaluate

    folder, names, ours = write_tasks(tmp_path / "tasks"), ["toy_rolling", "toy_writing", "toy_word"], model()
    with (folder / "writing.yaml").open("a") as file:
        file.write(FILTERS)
    word = SHARED.format(name="word", folder=folder) + WORD
    (folder / "word.yaml").write_text(word + "metric_list: [{metric: acc}, {metric: perplexity}]\n")

    def ask(names):
        recipe = load("tiny", [f"tasks=[{','.join(names)}]", f"task_path={folder}", "limit=6"])
        loaded = downstream.load_questions(recipe, downstream.find_tasks(recipe.tasks, recipe.task_path))
        return *downstream.ask(ours, recipe, loaded), loaded

    answers, about, loaded = ask(names)
    assert {told["questions"] for told in about.values()} == {6}
    theirs = evaluate(lm=ours, task_dict=loaded, limit=6, bootstrap_iters=0)["results"]
    assert {task: {*metrics} for task, metrics in answers.items()} == {
        "toy_rolling": {"bits_per_byte"},
        "toy_writing": {"exact_match,first", "exact_match,lower"},
        "toy_word": {"acc"},
    }
    for task, metrics in answers.items():
        for name, value_N in metrics.items():
            assert len(value_N) == 6
            assert value_N.mean() == pytest.approx(theirs[task][name if "," in name else f"{name},none"])
    (folder / "word.yaml").write_text(word + "metric_list: [{metric: perplexity}]\n")
    with pytest.raises(ValueError, match=r"tasks=toy_word has no metric that is a mean .* \(perplexity\): choose"):
        ask(["toy_word"])


def test_a_run_of_tasks_shows_accuracies_beside_all_big(finished, small, tmp_path, capsys):
    from duo.run import main

    tasks = write_tasks(tmp_path / "tasks")
    asked = [*small, "tasks=[toy_choice,toy_writing]", f"task_path={tasks}", "limit=10", f"cache={finished}/cache"]
    assert main([*asked, f"output={tmp_path}/out"]) == 0, capsys.readouterr()
    told = json.loads((tmp_path / "out" / "result.json").read_text())
    shown = capsys.readouterr().out
    assert "toy_choice: means, and minus all big" in shown
    assert (tmp_path / "out" / "figures" / "accuracy.png").exists()
    rows = told["rows"]
    assert {*rows} == {"all_big", "all_small", "random", "fixed_best", "router"}
    assert told["tasks"]["toy_choice"]["questions"] == 10
    assert {*rows["router"]["accuracy"]["toy_choice"]} == {"acc", "acc_norm"}
    for row in rows.values():
        found = row["accuracy"]["toy_choice"]["acc"]
        assert found["value"] * 10 == pytest.approx(round(found["value"] * 10))
        expected = np.sqrt(found["value"] * (1 - found["value"]) / 9)
        assert found["error"] == pytest.approx(expected)
        assert row["minus"]["toy_choice"]["acc"]["value"] == pytest.approx(
            found["value"] - rows["all_big"]["accuracy"]["toy_choice"]["acc"]["value"]
        )
    assert rows["all_big"]["minus"]["toy_choice"]["acc"] == {"value": 0.0, "error": 0.0}
    # and again: nothing is asked twice
    assert main([*asked, f"output={tmp_path}/out"]) == 0
    # the run as a model of lm-eval's own command
    from lm_eval.api.registry import get_model
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    lm = get_model("duo").create_from_arg_string(f"run={tmp_path}/out", {"batch_size": "2", "device": "cuda:0"})
    loaded = TaskManager(include_path=str(tasks), include_defaults=False).load(["toy_choice", "toy_rolling"])
    theirs = evaluate(lm=lm, task_dict=loaded, limit=10, bootstrap_iters=100)["results"]
    assert theirs["toy_choice"]["acc,none"] == pytest.approx(rows["router"]["accuracy"]["toy_choice"]["acc"]["value"])
    assert theirs["toy_choice"]["acc_stderr,none"] == pytest.approx(
        rows["router"]["accuracy"]["toy_choice"]["acc"]["error"]
    )
    assert 0 < theirs["toy_rolling"]["bits_per_byte,none"] < 20


@pytest.mark.long  # it reads all YAML files of lm-eval's
def test_lm_evals_own_command_asks_a_run(finished, tmp_path):
    def ask(run):
        tasks = ["--tasks", "toy_choice", "--include_path", str(write_tasks(tmp_path / "tasks"))]
        command = [sys.executable, "-m", "duo.lm_eval", "--model", "duo", "--model_args", f"run={run}", *tasks]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = ask(finished / "run")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\|toy_choice *\| *1\|none *\| *0\|acc +\|", done.stdout)
    failed = ask(tmp_path / "nowhere")
    assert failed.returncode == 1
    assert "nowhere holds no recipe.yaml: give a run's folder" in failed.stderr.splitlines()[-1]


@pytest.mark.long  # it reads all YAML files of lm-eval's
def test_a_task_that_is_not_there_is_named_with_the_nearest(tmp_path):
    tasks = write_tasks(tmp_path / "tasks")
    with pytest.raises(ValueError, match=r"unknown task 'toy_chioce'.*toy_choice.*task_path=DIR") as error:
        downstream.find_tasks(["toy_chioce"], str(tasks))
    assert "\n" not in str(error.value)
    assert "arc_easy" in downstream.find_tasks(["arc_easy"], None).all_tasks


def test_what_cannot_be_asked_is_said_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"task_path=.* is no folder"):
        downstream.find_tasks(["toy_choice"], str(tmp_path / "nowhere"))
    tasks = write_tasks(tmp_path / "tasks")
    recipe = load("tiny", ["tasks=[toy_choice]", f"task_path={tasks}"])
    manager = downstream.find_tasks(recipe.tasks, recipe.task_path)
    (tasks / "choice.jsonl").unlink()
    with pytest.raises(ValueError, match=r"tasks=toy_choice cannot be asked .*check the network, or give") as error:
        downstream.load_questions(recipe, manager)
    assert "\n" not in str(error.value)
    for setting, said in (("limit=0", "limit=0 must be at least 1"), ("compare.rows.x.seed=1", "leave compare")):
        with pytest.raises(ValueError, match=said):
            load("tiny", ["tasks=[toy_choice]", setting])
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(ValueError, match=r"pip install 'duo-llm\[eval\]'"):
        downstream.find_tasks(["toy_choice"], None)
