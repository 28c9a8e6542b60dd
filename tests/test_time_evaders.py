"""Routers whose work leaves torch, so that no operator is counted, each marked by the time that it takes."""

import functools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import toy_backbone
from test_cost_evaders import SHIPPED, calls_the_backbone, router_of
from test_evaluate import batches_of

from duo.evaluation.evaluate import evaluate
from duo.routing import registry
from duo.testing.lab import Lab


def heavy(x):
    """A hundred times what an all-big pass of the toy takes."""
    for _ in range(150):
        x = np.tanh(np.ones((64, 256)) @ np.ones((256, 256)) * x.mean())
    return x


def by_numpy(trial, x_BSD, layer):
    heavy(x_BSD.numpy())


def by_sleeping(trial, x_BSD, layer):
    time.sleep(0.3)


def in_a_pool(trial, x_BSD, layer):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(heavy, [x_BSD.numpy()] * 2))


def by_torch_in_a_thread(trial, x_BSD, layer):
    thread = threading.Thread(target=lambda: [torch.ones(400, 400) @ torch.ones(400, 400) for _ in range(60)])
    thread.start(), thread.join()


def where_no_mode_sees_it(trial, x_BSD, layer):
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes():
        for _ in range(60):
            torch.ones(400, 400) @ torch.ones(400, 400)


@pytest.mark.parametrize("work", [by_numpy, by_sleeping, in_a_pool, by_torch_in_a_thread, where_no_mode_sees_it])
def test_work_that_leaves_torch_is_marked_by_its_time(work):
    score = evaluate(toy_backbone(), router_of(during=work), batches_of((2, 2)))
    assert score.unexplained_time
    assert score.time_ratio > 5


def test_a_pass_that_is_paid_for_excuses_no_other_work():
    def both(trial, x_BSD, layer):
        calls_the_backbone(trial)
        in_a_pool(trial, x_BSD, layer)

    score = evaluate(toy_backbone(), router_of(during=both), batches_of((2, 2)))
    assert score.passes == 3
    assert score.unexplained_time


def test_a_thread_that_works_beside_the_pass_is_marked_by_the_processors_time():
    started = []

    def start(trial):
        started.append(threading.Thread(target=heavy, args=(trial.tokens_BT.numpy(),)))
        started[-1].start()

    def wait(trial, x_BSD, layer):
        if layer == 2:
            started[-1].join()

    assert evaluate(toy_backbone(), router_of(start, wait), batches_of((2, 2))).unexplained_time


@pytest.mark.parametrize("name", SHIPPED)
def test_no_shipped_router_is_marked(name):
    lab = Lab(functools.partial(registry.load(name)))
    router = lab.router()
    batches = [lab.batch(8, 32, seed=seed) for seed in range(1 if "oracle" in name else 4)]
    # a machine that is busy may mark a row now and then; an evader is marked each time
    scores = [evaluate(lab.backbone, router, batches)]
    while scores[-1].unexplained_time and len(scores) < 4:
        scores.append(evaluate(lab.backbone, router, batches))
    assert not scores[-1].unexplained_time
    assert scores[-1].router_flops_per_token > 0
