"""Accuracies on downstream tasks (section 3.4 of the paper): each row's, and minus another's, question by question."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from msgspec import Struct

from duo.evaluation.score import PerModule

Answers = dict[str, dict[str, np.ndarray]]
"""By task and metric, the value of each question, (N,)."""


class Accuracy(Struct, frozen=True):
    """A mean over questions, or over differences of pairs of them, with its standard error."""

    value: float
    """The mean."""
    error: float | None
    """Of a single question none can be had."""


class TaskRow(Struct, frozen=True):
    """What a row reached."""

    router: str
    """Name of the router."""
    options: dict[str, Any]
    """Its options."""
    budget: PerModule
    """Modules per token."""
    accuracy: dict[str, dict[str, Accuracy]]
    """By task and metric (acc; acc_norm: of choices, by log-probability a byte)."""
    minus: dict[str, dict[str, Accuracy]]
    """The same minus that of all big, paired by question; 0 for all big itself."""
    failed: str = ""
    """Why there is nothing."""


class Downstream(Struct, frozen=True):
    """Recipe, rows and provenance of a run on tasks."""

    recipe: str
    """Name of the recipe."""
    recipe_digest: str
    """Identity of the run."""
    backbone: dict[str, Any]
    """Digest of the weights, parameters and training tokens of the backbone."""
    tasks: dict[str, dict[str, Any]]
    """By task: how many questions, how many examples in front of each, and the task's version."""
    rows: dict[str, TaskRow]
    """By name: all big, fixed, random, and the run's own router."""
    provenance: dict[str, Any]
    """Commit, versions, device, seed, seconds and command."""


def mean_of(value_N: np.ndarray) -> Accuracy:
    """The mean of questions with its standard error, of n - 1 degrees of freedom as in lm-eval.

    >>> mean_of(np.array([1.0, 0.0, 1.0, 1.0]))
    Accuracy(value=0.75, error=0.25)
    """
    error = float(value_N.std(ddof=1)) / math.sqrt(len(value_N)) if len(value_N) > 1 else None
    return Accuracy(float(value_N.mean()), error)


def means_of(answers: Answers) -> dict[str, dict[str, Accuracy]]:
    """The mean of each task's metrics."""
    return {task: {name: mean_of(value_N) for name, value_N in metrics.items()} for task, metrics in answers.items()}


def subtract(answers: Answers, others: Answers) -> Answers:
    """Differences of the same questions, in the same order."""
    return {
        task: {name: value_N - others[task][name] for name, value_N in metrics.items()}
        for task, metrics in answers.items()
    }
