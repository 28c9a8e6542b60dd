"""A model's weights as a backbone: by the meta device, so that memory holds them once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from duo.backbone.config import BackboneConfig
from duo.backbone.model import Backbone
from duo.backbone.pretrained.names import DERIVED, HEAD, SMALL, name_in_model

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
UNUSED_POSITIONS = 2  # rows in front of OPT's table that no token uses
Files = dict[str, list[str]]
"""Names of tensors by the file that holds them."""


def read_backbone(folder: Path, config: BackboneConfig) -> Backbone:
    """A backbone whose big FFNs, attention, embeddings and norms are the model's; the small FFNs are drawn anew.

    The draws come from torch's generator, as those of every new backbone.

    Raises:
        ValueError: weights are missing, too many, of another shape than the config says, damaged, or pickled.
    """
    with torch.device("meta"):
        backbone = Backbone(config)
    files = _files(folder)
    theirs = {name_in_model(name, config): name for name in backbone.state_dict() if SMALL not in f".{name}"}
    _check_names(folder, {*theirs}, {name for names in files.values() for name in names}, config.tied)
    shapes = {name: value.shape for name, value in backbone.state_dict().items()}
    state: dict[str, Tensor] = {}
    for file, held in files.items():
        with _opened(folder / file) as tensors:
            for name in filter(theirs.__contains__, held):  # one by one: in 16 bits and in 32, no two are held at once
                ours = theirs[name]
                state[ours] = _fitted(f"{folder}: {name}", ours, tensors.get_tensor(name), shapes[ours])
    if config.tied:
        _check_tied(folder, files, state["embedding.weight"])
    backbone.load_state_dict(state, strict=False, assign=True)
    backbone.initialise_small()
    return backbone


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file of tensors; raises ValueError where it cannot be read."""
    try:
        with safe_open(path, "pt") as tensors:
            yield tensors
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def files_digest(folder: Path) -> str:
    """SHA-256 of the config and the weights: what a model is, wherever it lies."""
    found = hashlib.sha256()
    for file in ["config.json", *sorted(_files(folder))]:
        path = folder / file
        if not path.is_file():
            raise ValueError(f"{folder} holds no {file}: give a folder that save_pretrained wrote")
        found.update(_file_digest(path, path.stat().st_size, path.stat().st_mtime_ns).encode())
    return found.hexdigest()


@lru_cache(256)
def _file_digest(path: Path, size: int, changed: int) -> str:
    """Of one file; gigabytes are read once, as long as size and time are the same."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            found.update(chunk)
    return found.hexdigest()


def _files(folder: Path) -> Files:
    """The tensors of each file, from one file or from the index of several."""
    if (folder / SINGLE).is_file():  # first, as transformers has it: beside it an index may be of an older model
        with _opened(folder / SINGLE) as held:
            return {SINGLE: [*held.keys()]}
    if (folder / INDEX).is_file():
        return _indexed(folder)
    if pickles := sorted(path.name for path in folder.glob("*.bin")):
        raise ValueError(
            f"{folder} holds {pickles[0]}, a pickle, which may run anything: convert it where you trust it, with "
            "transformers' AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)"
        )
    raise ValueError(f"{folder} holds no weights ({SINGLE} or {INDEX}): give a folder that save_pretrained wrote")


def _indexed(folder: Path) -> Files:
    try:
        held = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        files: Files = {}
        for name, file in held.items():
            if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
                raise ValueError(f"{file!r} is no safetensors file of the folder")
            files.setdefault(file, []).append(name)
        if missing := [file for file in files if not (folder / file).is_file()]:
            raise ValueError(f"{missing[0]} is missing")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder / INDEX, error) from error
    return files


def _check_names(folder: Path, wanted: set[str], found: set[str], tied: bool) -> None:
    """Raises ValueError where tensors are missing, or are there that nothing of a backbone is made of."""
    extra = {name for name in found - wanted if not name.endswith(DERIVED)} - ({HEAD} if tied else set())
    for names, what in ((wanted - found, "lacks"), (extra, "holds, beyond what its config.json says,")):
        if names:
            shown = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise ValueError(f"{folder} {what} {shown}: save the model and its config anew")


def _check_tied(folder: Path, files: Files, embedding_VD: Tensor) -> None:
    """Raises ValueError where a file holds a head beside the embedding that should be it."""
    for file in (file for file, held in files.items() if HEAD in held):
        with _opened(folder / file) as tensors:
            if not torch.equal(tensors.get_tensor(HEAD).float(), embedding_VD):
                raise ValueError(
                    f"{folder} holds a {HEAD} beside its embedding, yet config.json says tie_word_embeddings=true: "
                    "say false"
                )


def _fitted(what: str, name: str, value: Tensor, shape: torch.Size) -> Tensor:
    """A tensor as a backbone's parameter of that name, in 32 bits.

    Raises:
        ValueError: its shape or type is another; `what` says whose.
    """
    if value.dtype not in FLOATS:
        raise ValueError(f"{what} is {value.dtype}: save the model in 16 or 32 bits")
    unused = UNUSED_POSITIONS if name == "position_embedding.weight" else 0
    if [*value.shape] != [shape[0] + unused, *shape[1:]]:
        raise ValueError(
            f"{what} has the shape {[*value.shape]}, config.json says {[shape[0] + unused, *shape[1:]]}: "
            "give the model's own config.json"
        )
    return value[unused:].clone().float() if unused else value.float()


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} cannot be read ({error}): fetch or save the model anew")
