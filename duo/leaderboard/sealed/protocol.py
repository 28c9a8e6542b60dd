"""What parent and child write for one another: JSON and safetensors in one folder, of which the child's are checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from msgspec import Struct, structs
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from duo.backbone import MODULES, PADDING
from duo.data.batch import Batch
from duo.evaluation.decide import Spent

BACKBONE, ROUTER = "backbone.safetensors", "router.safetensors"
"""The weights that a child gets."""
TRAINED = "trained.safetensors"
"""The weights that a child gives."""
JOB, INPUTS, ANSWER, ROUTES = "job.json", "inputs.safetensors", "answer.json", "routes.safetensors"
HEADER = 16 << 20  # bytes that a file may have besides what was asked for

Decided = list[list[tuple[Tensor, Spent]]]
"""route_BTL and what it cost, by part and batch."""
T = TypeVar("T")


class Inputs(Struct, frozen=True):
    """Whose tokens lie in the inputs' file, under the places of a part and of the batch in it."""

    domain: str
    tokenizer: str


class Job(Struct, frozen=True):
    """What a child is to route, in order, and with what."""

    router: str
    options: dict[str, Any]
    budget: dict[str, float]
    """Modules per token."""
    backbone: dict[str, Any]
    """Fields of `BackboneConfig`."""
    seed: int
    device: str
    threads: int
    parts: list[list[Inputs]] = []
    """Batches by part; each part is decided, and its time taken, on its own."""


class Answer(Struct, frozen=True, forbid_unknown_fields=True):
    """What a child says; its routes lie beside it."""

    asked_for_labels: bool = False
    """Whether the router cannot do without labels."""
    failed: str | None = None
    """What was wrong, in a line."""
    spent: list[list[Spent]] = []
    """By part and batch."""


def write_job(folder: Path, job: Job, parts: Sequence[Sequence[Batch]]) -> None:
    """Writes a job and its inputs; of labels, documents and bytes nothing is written."""
    inputs = {}
    for name, batch in _named(parts):
        inputs[f"{name}/tokens"], inputs[f"{name}/sequences"] = batch.tokens_BT.cpu(), batch.sequence_B.cpu()
    save_file({name: part.clone() for name, part in inputs.items()}, folder / INPUTS)  # it takes no views
    described = [[Inputs(batch.domain, batch.tokenizer) for batch in batches] for batches in parts]
    (folder / JOB).write_bytes(msgspec.json.encode(structs.replace(job, parts=described)))


def read_job(folder: Path) -> tuple[Job, list[list[Batch]]]:
    """What `write_job` wrote, as batches that hold nothing to score."""
    job, inputs = msgspec.json.decode((folder / JOB).read_bytes(), type=Job), load_file(folder / INPUTS)

    def batch(name: str, about: Inputs) -> Batch:
        tokens_BT, sequence_B = inputs[f"{name}/tokens"], inputs[f"{name}/sequences"]
        nothing_B, no_labels_BT = torch.zeros_like(sequence_B), torch.full_like(tokens_BT, PADDING)
        return Batch(tokens_BT, no_labels_BT, sequence_B, nothing_B, nothing_B, about.domain, about.tokenizer)

    return job, [
        [batch(f"{place}/{index}", about) for index, about in enumerate(part)] for place, part in enumerate(job.parts)
    ]


def write_answer(folder: Path, answer: Answer, routes: Sequence[Sequence[Tensor]] = ()) -> None:
    """Writes what a child says: route_BTL of each batch, by part, and the rest."""
    save_file({name: route_BTL.contiguous() for name, route_BTL in _named(routes)}, folder / ROUTES)
    (folder / ANSWER).write_bytes(msgspec.json.encode(answer))


def read_answer(folder: Path) -> Answer:
    """What a child says, its routes left aside.

    Raises:
        ValueError: it says nothing, or what is no answer.
    """
    try:
        answer = msgspec.json.decode(read_bounded(folder / ANSWER, 0), type=Answer)
    except msgspec.DecodeError as error:
        raise ValueError(f"{ANSWER} is no answer: {error}") from error
    if answer.failed is not None:
        line = " ".join(answer.failed.split())[:500]
        answer = structs.replace(answer, failed="".join(sign for sign in line if sign.isprintable()))
    return answer


def read_routes(folder: Path, answer: Answer, parts: Sequence[Sequence[Batch]], layers: int) -> Decided:
    """What a child has decided.

    Raises:
        ValueError: it is not what was asked for.
    """
    shapes = {name: (*batch.tokens_BT.shape, layers) for name, batch in _named(parts)}
    try:
        routes = load(read_bounded(folder / ROUTES, sum(map(math.prod, shapes.values()))))
    except Exception as error:  # safetensors has exceptions of its own
        raise ValueError(f"{ROUTES} holds no routes: {error}") from error
    if {*routes} != {*shapes}:
        raise ValueError(f"{ROUTES} holds other routes than were asked for")
    for name, shape in shapes.items():
        route_BTL = routes[name]
        if route_BTL.dtype != torch.uint8 or route_BTL.shape != shape or int(route_BTL.max()) >= len(MODULES):
            raise ValueError(f"{ROUTES} holds {route_BTL.dtype} {(*route_BTL.shape,)}, not modules {shape}")
    if [*map(len, answer.spent)] != [*map(len, parts)]:
        raise ValueError(f"{ANSWER} does not say what every batch cost")
    return [
        [(routes[f"{place}/{index}"], cost) for index, cost in enumerate(spent)]
        for place, spent in enumerate(answer.spent)
    ]


def read_bounded(path: Path, size: int) -> bytes:
    """A file that a child has written, of no more bytes than it should have.

    Raises:
        ValueError: it is not there, is too large, or is no file of its own.
    """
    if path.is_symlink() or not path.is_file():  # a link could lead to what the parent alone may read
        raise ValueError(f"{path.name} is missing")
    if path.stat().st_size > size + HEADER:
        raise ValueError(f"{path.name} is larger than what was asked for")
    return path.read_bytes()


def _named(parts: Sequence[Sequence[T]]) -> Iterator[tuple[str, T]]:
    """What belongs to each batch, by the places of its part and of itself in it."""
    for place, part in enumerate(parts):
        yield from ((f"{place}/{index}", found) for index, found in enumerate(part))
