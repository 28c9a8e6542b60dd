"""Weights of modules as safetensors, and their digests."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from duo.storage.files import replacing
from duo.storage.processes import whole


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers: their names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(f"{name} {value.dtype} {[*value.shape]}".encode())
        # as bytes: numpy knows no bfloat16
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def save_weights(module: nn.Module, path: Path) -> None:
    """Parameters and buffers as safetensors, in 16 bits what `round_to_bfloat16` rounded.

    Raises:
        FloatingPointError: a parameter is not finite.
        OSError: the file cannot be written.
    """
    check_finite(module)
    state = module.state_dict()
    names = Counter(value.untyped_storage().data_ptr() for value in state.values())
    for name, value in state.items():
        if names[value.untyped_storage().data_ptr()] == 1 and _is_bfloat16(value):
            state[name] = value.bfloat16()
    # save_file refuses tensors that share memory; save_model asks a module for nothing but its state
    with replacing(path) as temporary:
        save_model(cast(nn.Module, SimpleNamespace(state_dict=lambda: state)), str(temporary))


def _is_bfloat16(value: Tensor) -> bool:
    """Whether a tensor of 32 bits holds nothing but what 16 bits hold too."""
    return value.dtype == torch.float32 and value.bfloat16().to(value.dtype).equal(value)


@torch.no_grad()
def round_to_bfloat16(module: nn.Module) -> None:
    """Rounds a module's parameters to numbers of 16 bits: its file takes half the room. They keep their type."""
    for parameter in module.parameters():
        parameter.copy_(parameter.bfloat16())


def check_finite(module: nn.Module) -> None:
    """Raises FloatingPointError where a parameter is not finite, and names it."""
    for name, parameter in module.named_parameters():
        if not whole(parameter.detach().isfinite().all()):
            raise FloatingPointError(f"training left weights that are not finite ({name}): lower the learning rate")


def load_weights(module: nn.Module, path: Path) -> None:
    """Parameters and buffers from safetensors.

    Raises:
        ValueError: the file is damaged, or made for another module.
    """
    try:
        load_model(module, str(path))
    except Exception as error:  # safetensors and torch have exceptions of their own
        raise ValueError(f"the weights {path} cannot be read ({error}): delete the file to make them anew") from error
