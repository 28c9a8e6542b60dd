"""A model's weights as a backbone: by the meta device, so that memory holds them once."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

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
    state, head = _tensors(folder, files, theirs)
    _check_tied(folder, head if config.tied else None, state)
    wanted = backbone.state_dict()
    state = {name: _fitted(folder, name, value, wanted[name].shape) for name, value in state.items()}
    backbone.load_state_dict(state, strict=False, assign=True)
    backbone.initialise_small()
    return backbone


def _tensors(folder: Path, files: Files, names: dict[str, str]) -> tuple[dict[str, Tensor], Tensor | None]:
    """The tensors that have a name of ours, as they lie in the files, and the head's, whether or not it has one."""
    state: dict[str, Tensor] = {}
    head = None
    for file, held in files.items():
        try:
            with safe_open(folder / file, "pt") as tensors:
                state |= {names[name]: tensors.get_tensor(name) for name in held if name in names}
                head = tensors.get_tensor(HEAD) if HEAD in held else head
        except (OSError, SafetensorError) as error:
            raise _damaged(folder / file, error) from error
    return state, head


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
    if (folder / INDEX).is_file():
        return _indexed(folder)
    if (folder / SINGLE).is_file():
        try:
            with safe_open(folder / SINGLE, "pt") as held:
                return {SINGLE: [*held.keys()]}
        except (OSError, SafetensorError) as error:
            raise _damaged(folder / SINGLE, error) from error
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


def _check_tied(folder: Path, head: Tensor | None, state: dict[str, Tensor]) -> None:
    if head is not None and not torch.equal(head, state["embedding.weight"]):
        raise ValueError(
            f"{folder} holds a {HEAD} beside its embedding, yet config.json says tie_word_embeddings=true: say false"
        )


def _fitted(folder: Path, name: str, value: Tensor, shape: torch.Size) -> Tensor:
    """A tensor as a backbone's parameter, in 32 bits; raises ValueError where its shape or type is another."""
    if value.dtype not in FLOATS:
        raise ValueError(f"{folder}: the weights of {name} are {value.dtype}: save the model in 16 or 32 bits")
    if name == "position_embedding.weight":
        value = value[UNUSED_POSITIONS:].clone()
    if value.shape != shape:
        raise ValueError(f"{folder}: {name} has the shape {[*value.shape]}, config.json says {[*shape]}")
    return value.float()


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} cannot be read ({error}): fetch or save the model anew")
