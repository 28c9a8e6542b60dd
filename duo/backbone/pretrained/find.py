"""Where a model's files are: a folder that `save_pretrained` wrote, or a name on the hub."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from duo.storage.files import expand

SETTING = "backbone.pretrained"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
FILES = ["config.json", "*.safetensors", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json"]
MOST_BYTES = 64 << 20  # of a JSON file


def find_json(model: str, name: str, setting: str = SETTING) -> dict[str, Any]:
    """What one of the model's JSON files holds; from the hub, that file alone is fetched.

    Args:
        model: its folder, its name on the hub, or the file itself.
        name: of the file.
        setting: what errors call the model.

    Raises:
        ValueError: there is no such model, or the file is missing or no JSON with keys.
    """
    if (file := expand(model)).suffix == Path(name).suffix and file.is_file():
        path = file
    else:
        folder = _here(model, setting)
        path = folder / name if folder else _fetch(model, name, setting)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"larger than {MOST_BYTES:,} bytes")
        if not isinstance(found := json.loads(path.read_text(encoding="utf-8")), dict):
            raise ValueError("it must hold keys")
        return found
    except FileNotFoundError:
        raise ValueError(
            f"{setting}={model} holds no {name}: save_pretrained the model, and its tokenizer, there"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{setting}={model}: {name} cannot be read ({error}): save the model anew") from error


def find_beside(model: str, name: str, setting: str = SETTING) -> dict[str, Any]:
    """As `find_json`, for what need not be there, and then is empty; beside a file, where the model is one."""
    path = expand(model)
    path = path.parent if path.is_file() else path
    if path.is_dir():
        return find_json(str(path), name, setting) if (path / name).is_file() else {}
    try:
        return find_json(model, name, setting)
    except ValueError:  # the hub says no more of what it lacks
        return {}


def find_folder(model: str) -> Path:
    """The folder of a model; what is on the hub is fetched first, or found where it was kept.

    Raises:
        ValueError: there is no such folder, and no such name on the hub or no way there.
    """
    return _here(model) or _fetch(model)


def _here(model: str, setting: str = SETTING) -> Path | None:
    """The folder of that name; None for a name that may be one of the hub's."""
    folder = expand(model)
    if folder.is_dir():
        return folder
    if folder.exists() or not HUB_NAME.fullmatch(model):
        raise ValueError(
            f"{setting}={model} is no folder: give one that save_pretrained wrote, or a name on the hub (owner/model)"
        )
    return None


@lru_cache(64)  # one recipe asks many times
def _fetch(model: str, name: str | None = None, setting: str = SETTING) -> Path:
    """A model's folder from the hub, or one file of it."""
    try:
        import huggingface_hub as hub  # here: most runs need no hub
    except ImportError:
        raise ValueError(f"{setting}={model} is no folder here, and for the hub: pip install huggingface_hub") from None
    try:
        if name:
            return Path(hub.hf_hub_download(model, name))
        return Path(hub.snapshot_download(model, allow_patterns=FILES))
    except Exception as error:  # the hub, its drivers and the network have exceptions of their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{setting}={model} is no folder here, and cannot be had from the hub ({reason}): "
            "check the name and the network, or give the folder of a model that is here"
        ) from error
