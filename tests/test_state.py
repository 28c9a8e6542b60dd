"""How much a router holds, wherever it holds it."""

import array
import functools
import logging
from collections import deque
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from conftest import toy_backbone
from test_evaluate import SPEC, batches_of

from duo.evaluation.evaluate import evaluate
from duo.evaluation.size import Size, size_of
from routers.fixed import Fixed
from routers.ngram_budget import NgramBudget
from routers.softmax_budget import SoftmaxBudget

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
PLAIN = size_of(Fixed(SPEC), toy_backbone())
TABLE = 5000
MODELS: deque = deque()  # in a file of the router's, and yet counted once


class Slots:
    __slots__ = ("held",)

    def __init__(self, held):
        self.held = held


class Struct(msgspec.Struct):
    held: Any


def cached(held):
    @functools.cache
    def table():
        return held

    table()
    return table


def scripted(held):
    linear = torch.nn.Linear(held.numel() // 10, 10, bias=False)
    linear.weight = torch.nn.Parameter(held.view(10, -1))
    return torch.jit.script(linear)


class Box:
    def __init__(self, held):
        self.held = held

    def method(self):
        return self.held


def closure(held):
    return lambda: held


def default(held):
    return lambda given=held: given


def hiding_places():  # a dictionary in this file would be a part of each router here
    return {
        "attribute": lambda table: table,
        "list": lambda table: [[table]],
        "tuple": lambda table: (1, (table,)),
        "dictionary": lambda table: {"a": {"b": table}},
        "deque": lambda table: deque([table]),
        "object": Box,
        "closure": closure,
        "default": default,
        "partial": lambda table: functools.partial(print, table),
        "method": lambda table: Box(table).method,
        "slots": Slots,
        "struct": Struct,
        "cache of a function": cached,
        "iterator": lambda table: iter([table]),
        "generator": lambda table: (part for part in [table]),
        "values": lambda table: {1: table}.values(),
        "array of objects": lambda table: np.array([table, None], dtype=object)[:1],
        "scripted module": scripted,
        "traced constant": lambda table: torch.jit.trace(lambda x: x + table, torch.zeros(1)),
        "view of an array": lambda table: table.numpy()[:3],
        "module that is no child": lambda table: [torch.nn.ParameterList([table])],
    }


@pytest.mark.parametrize("hide", hiding_places().values(), ids=hiding_places())
def test_a_hidden_table_is_found_wherever_it_is_kept(hide):
    router = Fixed(SPEC)
    object.__setattr__(router, "cache", hide(torch.zeros(TABLE)))
    found = size_of(router, toy_backbone())
    assert found == (PLAIN.numbers + TABLE, PLAIN.bytes + 4 * TABLE)
    score = evaluate(toy_backbone(), router, batches_of((2,)))
    assert (score.router_parameters, score.router_bytes) == found


@pytest.mark.parametrize(
    ("table", "bytes_each"),
    [
        (np.zeros(TABLE, np.float16), 2),
        (bytearray(TABLE), 1),
        (b"x" * TABLE, 1),
        (array.array("d", [0.0] * TABLE), 8),
        ([0.5] * TABLE, 8),
        (dict.fromkeys(map(float, range(TABLE // 2)), 1), 8),
        ("x" * TABLE, 8),
        pytest.param(1 << 64 * TABLE, 8, id="number"),  # too large for a name
        (memoryview(bytes(TABLE)), 1),
        (torch.zeros(TABLE, dtype=torch.uint8).untyped_storage(), 1),
        (eval(f"lambda: {(0.5,) * TABLE}"), 8),
        (eval(f"lambda: lambda: {'x' * TABLE!r}"), 8),
        (torch.zeros(TABLE, dtype=torch.bfloat16), 2),
        (torch.zeros(1, TABLE).expand(7, -1), 4),
    ],
)
def test_whatever_the_table_is_made_of(table, bytes_each):
    router = Fixed(SPEC)
    router.cache = [table]
    found = size_of(router, toy_backbone())
    few = 100  # options and names of the router, which count where there is a table of plain numbers
    assert 0 <= found.numbers - PLAIN.numbers - TABLE <= few
    assert 0 <= found.bytes - PLAIN.bytes - bytes_each * TABLE <= 8 * few


def test_tables_of_classes_and_of_their_files_are_found():
    class Kept(Fixed):
        table = torch.zeros(TABLE)

    assert size_of(Kept(SPEC), toy_backbone()).numbers == PLAIN.numbers + TABLE
    for kept in ({"table": torch.zeros(TABLE)}, torch.nn.Embedding(TABLE, 1), Box(torch.zeros(TABLE))):
        globals()["KEPT"] = kept
        try:
            assert size_of(Kept(SPEC), toy_backbone()).numbers == PLAIN.numbers + 2 * TABLE
        finally:
            del globals()["KEPT"]


def test_what_only_describes_is_no_table():
    router = Fixed(SPEC)
    router.log, router.norm = logging.getLogger("duo"), torch.jit.script(torch.nn.ReLU())
    assert size_of(router, toy_backbone()) == PLAIN


def test_parameters_and_buffers_are_counted_once_and_the_backbone_not_at_all():
    backbone, router = toy_backbone(), SoftmaxBudget(SPEC)
    numbers = sum(part.numel() for part in (*router.parameters(), *router.buffers()))
    assert size_of(router, backbone) == Size(numbers, 4 * numbers)
    router.again = [*router.parameters()]
    router.view = router.heads[0].weight.detach()[:1]
    object.__setattr__(router, "model", backbone)
    assert size_of(router, backbone) == Size(numbers, 4 * numbers)
    object.__setattr__(router, "model", toy_backbone(seed=1))
    assert size_of(router, backbone).numbers > numbers + 1000


def test_a_sparse_table_takes_what_it_stores():
    router = Fixed(SPEC)
    router.table = torch.eye(100).to_sparse()
    assert size_of(router, toy_backbone()) == (PLAIN.numbers + 300, PLAIN.bytes + 100 * 4 + 200 * 8)


def test_a_table_of_tokens_counts_among_a_routers_parameters():
    router = NgramBudget(SPEC)
    table, plain = router.table.weight.numel(), size_of(SoftmaxBudget(SPEC), toy_backbone())
    assert table > 1000
    assert size_of(router, toy_backbone()).numbers > plain.numbers + table


def test_another_model_that_a_router_runs_is_part_of_it_though_it_lies_elsewhere():
    teacher = toy_backbone(seed=1)

    class Taught(Fixed):
        def route(self, trial):
            gate = super().route(trial)
            MODELS[0](trial.tokens_BT, gate)
            return gate

    MODELS.append(teacher)
    weights = sum(part.numel() for part in teacher.parameters())
    score = evaluate(toy_backbone(), Taught(SPEC), batches_of((2, 2)))
    assert score.router_parameters == PLAIN.numbers + weights
    assert score.passes == 1


def test_what_grows_as_it_routes_is_counted_at_the_end():
    class Growing(Fixed):
        def __init__(self, spec):
            super().__init__(spec)
            self.seen = []

        def route(self, trial):
            self.seen.append(torch.zeros(TABLE))
            return super().route(trial)

    score = evaluate(toy_backbone(), Growing(SPEC), batches_of((2, 2, 2)))
    assert score.router_parameters >= PLAIN.numbers + 3 * TABLE


def test_what_holds_itself_is_counted_once():
    router = Fixed(SPEC)
    router.cache = [router, torch.zeros(TABLE)]
    router.cache.append(router.cache)
    assert size_of(router, toy_backbone()).numbers == PLAIN.numbers + TABLE
