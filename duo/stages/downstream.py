"""Downstream tasks: all big, fixed, random and a recipe's router answer the same questions of lm-eval."""

from __future__ import annotations

import logging
import time
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from duo.evaluation.downstream import Answers, Downstream, TaskRow, means_of, subtract
from duo.evaluation.provenance import provenance
from duo.progress import at
from duo.recipe import Recipe
from duo.stages.output import digest_sources, keep_curves, keep_weights, note_backbone
from duo.stages.score import baseline_recipes, describe_backbone
from duo.stages.source import backbone_source
from duo.stages.stage3 import train_or_load, train_or_load_router
from duo.storage.files import expand
from duo.storage.processes import is_distributed
from duo.training.trainer import loss_curve

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

INSTALL = "tasks need lm-eval: pip install 'duo-llm[eval]'"
ALL_BIG = "all_big"
log = logging.getLogger(__name__)


def run_downstream(
    recipe: Recipe, name: str, command: str, folder: Path, *, cache: Path, device: torch.device
) -> Downstream:
    """Trains what is not trained yet, asks all rows, and leaves weights, logs and curves in the folder.

    The result is not saved yet.

    Raises:
        ValueError: lm-eval is missing, a task is not there or cannot be had, several processes, or no row can answer.
    """
    if is_distributed():
        raise ValueError("tasks are answered by one process: leave trainer.devices and trainer.num_nodes at 1")
    start, loaded = time.time(), load_questions(recipe, find_tasks(recipe.tasks, recipe.task_path))
    source = backbone_source(recipe)
    data = source.open_data(cache)
    note_backbone(folder, source.identity(data))
    backbone, router = train_or_load(recipe, source, data, device)
    baselines = {row: each for row, each in baseline_recipes(recipe).items() if each.full_holdout}
    rows = {ALL_BIG: baselines.pop(ALL_BIG), **baselines, "router": recipe}
    found, about, failed = dict[str, Answers](), dict[str, dict[str, Any]](), dict[str, str]()
    from duo.inference.harness import DuoLM

    for row, each in rows.items():
        log.info("tasks  %s", row)
        made = router if row == "router" else train_or_load_router(each, backbone, data, row)
        lm = DuoLM(backbone.module, made.module, data.tokenizer, recipe.data.batch_size, recipe.seed)
        try:
            with at(row):
                found[row], about = ask(lm, recipe, loaded)
        except ValueError as error:
            if row == ALL_BIG:
                raise
            log.warning("failed  %s: %s", row, error)
            failed[row] = str(error)
    keep_weights(folder, backbone, router, data.tokenizer)
    keep_curves(folder, {"stage 1": loss_curve(backbone.folder), "stage 3": loss_curve(router.folder)})
    return Downstream(
        recipe=name,
        recipe_digest=recipe.digest,
        backbone=describe_backbone(backbone, source.train_tokens, data),
        tasks=about,
        rows={
            row: _row(rows[row], found.get(row, {}), found[ALL_BIG], failed.get(row, "")) for row in [*found, *failed]
        },
        provenance=provenance(recipe.seed, device, time.time() - start, command, digest_sources(recipe)),
    )


def _row(recipe: Recipe, answers: Answers, all_big: Answers, failed: str) -> TaskRow:
    return TaskRow(
        recipe.router["name"], recipe.router_options, recipe.spec.budget._asdict(), means_of(answers),
        means_of(subtract(answers, all_big)), failed,
    )  # fmt: skip


def find_tasks(tasks: list[str], path: str | None) -> TaskManager:
    """lm-eval's tasks, with those of a folder; raises ValueError where it is missing, or one of the tasks is."""
    if path is not None and not expand(path).is_dir():
        raise ValueError(f"task_path={path} is no folder: give one that holds the YAML of tasks")
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise ValueError(INSTALL) from None
    if path is not None:
        own = TaskManager(include_path=str(expand(path).absolute()), include_defaults=False)
        if {*tasks} <= {*own.all_tasks}:
            return own  # without reading the thousands of YAML files that come with lm-eval
    manager = TaskManager(include_path=None if path is None else str(expand(path).absolute()))
    for task in tasks:
        if task not in manager.all_tasks:
            near = get_close_matches(task, manager.all_tasks)
            guess = f"did you mean {' or '.join(near)}? " if near else ""
            there = f"there are {len(manager.all_tasks):,} (python -m duo.lm_eval ls tasks); your own: task_path=DIR"
            raise ValueError(f"unknown task {task!r}: {guess}{there}")
    return manager


def load_questions(recipe: Recipe, manager: TaskManager) -> dict[str, Any]:
    """The recipe's tasks with their questions; raises ValueError where those cannot be had, or no metric is a mean."""
    from lm_eval.api.metrics import bits_per_byte, mean

    try:
        loaded = manager.load([*recipe.tasks])
    except Exception as error:  # lm-eval, datasets and the network have exceptions of their own
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"tasks={','.join(recipe.tasks)} cannot be asked ({reason}): check the network, or give task_path=DIR of "
            "tasks whose questions are here"
        ) from error
    for name, task in loaded["tasks"].items():
        if not {mean, bits_per_byte} & {*task.aggregation().values()}:
            raise ValueError(
                f"tasks={name} has no metric that is a mean over its questions ({', '.join(task.aggregation())}): "
                "choose another task"
            )
        if (said := task.get_config("num_fewshot")) is None or (recipe.shots is not None and said):
            task.set_config(key="num_fewshot", value=recipe.shots or 0)  # a task that says 0 wants none
    return loaded


def ask(lm: Any, recipe: Recipe, loaded: dict[str, Any]) -> tuple[Answers, dict[str, dict[str, Any]]]:
    """A model's answers, and what is told of the tasks; raises ValueError where the model cannot answer."""
    from lm_eval.evaluator import evaluate  # not simple_evaluate, which asks pip for what is installed, every time

    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=recipe.seed)  # anew: every row sees the same examples
    found = evaluate(lm=lm, task_dict=loaded, limit=recipe.limit, bootstrap_iters=0, log_samples=True)
    assert found is not None
    about = {
        task: {
            "questions": len({sample["doc_id"] for sample in samples}),
            "shots": found["n-shot"][task],
            "version": found["versions"].get(task),
        }
        for task, samples in found["samples"].items()
    }
    return {task: _values(samples, loaded["tasks"][task]) for task, samples in found["samples"].items()}, about


def _values(samples: list[dict[str, Any]], task: Any) -> dict[str, np.ndarray]:
    """Each metric's value of every question, in the order of the questions; of metrics that are means of numbers.

    What a task reads out of an answer in several ways (its filters) has a metric for each.
    """
    found = dict[str, np.ndarray]()
    for reading in dict.fromkeys(sample.get("filter", "none") for sample in samples):
        ordered = [sample for sample in samples if sample.get("filter", "none") == reading]
        ordered.sort(key=lambda sample: sample["doc_id"])
        for name in ordered[0]["metrics"]:
            value_N = _per_question([sample.get(name) for sample in ordered], task.aggregation().get(name))
            if value_N is not None:
                found[name if reading == "none" else f"{name},{reading}"] = value_N
    return found


def _per_question(told: list[Any], aggregate: Any) -> np.ndarray | None:
    """Numbers whose mean is what lm-eval makes of a metric; None where it is no mean of numbers, as perplexities."""
    from lm_eval.api.metrics import bits_per_byte, mean

    if aggregate is bits_per_byte:
        nats_N, bytes_N = np.array(told, dtype=float).T
        bits_N = -nats_N / np.log(2)
        # of a quotient of sums: its standard error is that of these numbers
        whole = bits_N.sum() / bytes_N.sum()
        return np.asarray(whole + (bits_N - whole * bytes_N) / bytes_N.mean())
    numbers = all(isinstance(value, (bool, int, float, np.number)) for value in told)
    return np.array(told, dtype=float) if aggregate is mean and numbers else None
