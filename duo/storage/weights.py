"""Weights of modules as safetensors, and their digests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import nn

from duo.storage.files import replacing


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers: their names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(f"{name} {value.dtype} {[*value.shape]}".encode())
        # as bytes: numpy knows no bfloat16
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def save_weights(module: nn.Module, path: Path) -> None:
    """Parameters and buffers as safetensors.

    Raises:
        FloatingPointError: a parameter is not finite.
        OSError: the file cannot be written.
    """
    check_finite(module)
    with replacing(path) as temporary:
        save_model(module, str(temporary))  # save_file refuses tensors that share memory


def check_finite(module: nn.Module) -> None:
    """Raises FloatingPointError where a parameter is not finite, and names it."""
    for name, parameter in module.named_parameters():
        if not parameter.detach().isfinite().all():
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
