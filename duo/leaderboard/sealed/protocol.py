"""What parent and child write for one another: JSON and safetensors in one folder, of which the child's are checked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import Struct
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
HEADER = 1 << 20  # bytes that a file may have besides what was asked for


class Part(Struct, frozen=True):
    """Batches of one domain and length, whose inputs lie in the inputs' file under the part's place."""

    domain: str
    tokenizer: str
    sizes: list[int]
    """Sequences of every batch."""


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
    parts: list[Part] = []


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
    inputs, described = {}, []
    for place, batches in enumerate(parts):
        first = batches[0]
        inputs[f"{place}/tokens"] = torch.cat([batch.tokens_BT for batch in batches]).cpu()
        inputs[f"{place}/sequences"] = torch.cat([batch.sequence_B for batch in batches]).cpu()
        described.append(Part(first.domain, first.tokenizer, [len(batch.tokens_BT) for batch in batches]))
    save_file(inputs, folder / INPUTS)
    (folder / JOB).write_bytes(msgspec.json.encode(msgspec.structs.replace(job, parts=described)))


def read_job(folder: Path) -> tuple[Job, list[list[Batch]]]:
    """What `write_job` wrote, as batches that hold nothing to score."""
    job, inputs = msgspec.json.decode((folder / JOB).read_bytes(), type=Job), load_file(folder / INPUTS)
    parts = []
    for place, part in enumerate(job.parts):
        tokens_NT, sequence_N = inputs[f"{place}/tokens"], inputs[f"{place}/sequences"]
        chunks = zip(tokens_NT.split(part.sizes), sequence_N.split(part.sizes), strict=True)
        parts.append([_unlabelled(tokens_BT, ids_B, part) for tokens_BT, ids_B in chunks])
    return job, parts


def _unlabelled(tokens_BT: Tensor, sequence_B: Tensor, part: Part) -> Batch:
    nothing_B = torch.zeros_like(sequence_B)
    labels_BT = torch.full_like(tokens_BT, PADDING)
    return Batch(tokens_BT, labels_BT, sequence_B, nothing_B, nothing_B, part.domain, part.tokenizer)


def write_answer(folder: Path, answer: Answer, routes: Sequence[Tensor] = ()) -> None:
    """Writes what a child says: the routes of each part, (N, T, L), and the rest."""
    save_file({str(place): route_NTL.contiguous() for place, route_NTL in enumerate(routes)}, folder / ROUTES)
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
        answer = msgspec.structs.replace(answer, failed="".join(sign for sign in line if sign.isprintable()))
    return answer


def read_routes(
    folder: Path, answer: Answer, parts: Sequence[Sequence[Batch]], layers: int
) -> list[list[tuple[Tensor, Spent]]]:
    """route_BTL of every part and batch, and what it cost.

    Raises:
        ValueError: it is not what was asked for.
    """
    shapes = [(sum(map(_sequences, batches)), batches[0].tokens_BT.shape[1], layers) for batches in parts]
    size = sum(sequences * tokens * layers for sequences, tokens, _ in shapes)
    try:
        routes = load(read_bounded(folder / ROUTES, size))
    except Exception as error:  # safetensors has exceptions of its own
        raise ValueError(f"{ROUTES} holds no routes: {error}") from error
    if {*routes} != {*map(str, range(len(parts)))}:
        raise ValueError(f"{ROUTES} holds other routes than were asked for")
    found = []
    for batches, spent, shape, route_NTL in itertools.zip_longest(parts, answer.spent, shapes, _ordered(routes)):
        if route_NTL.dtype != torch.uint8 or route_NTL.shape != shape or int(route_NTL.max()) >= len(MODULES):
            raise ValueError(f"{ROUTES} holds {route_NTL.dtype} {(*route_NTL.shape,)}, not modules {shape}")
        if spent is None or len(spent) != len(batches):
            raise ValueError(f"{ANSWER} does not say what every batch cost")
        found.append([*zip(route_NTL.split([*map(_sequences, batches)]), spent, strict=True)])
    return found


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


def _sequences(batch: Batch) -> int:
    return len(batch.tokens_BT)


def _ordered(routes: dict[str, Tensor]) -> list[Tensor]:
    return [routes[name] for name in sorted(routes, key=int)]
