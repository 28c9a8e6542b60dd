"""Downstream tasks: metrics are the means that lm-eval makes, differences are paired, what cannot be asked is said."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from test_harness import model
from toy_tasks import SHARED, write_tasks

from duo.evaluation.downstream import Accuracy, mean_of, subtract
from duo.recipe import load
from duo.stages import downstream

lm_eval = pytest.importorskip("lm_eval")


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
