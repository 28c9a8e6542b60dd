"""Whether a router has left the backbone alone, and what all models of the process share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from duo.backbone import Backbone

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Untouched:
    """A backbone as it was when this was made; to see afterwards whether it is still so.

    Raises:
        ValueError: hooks hang on it, whose work nobody would count.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        hooked = [name or "backbone" for name, module in backbone.named_modules() if _hooks(module)]
        if hooked:
            raise ValueError(
                f"hooks hang on the backbone ({', '.join(hooked[:3])}): remove them, for nobody counts them"
            )
        self._state, self._sums, self._shared = _state(backbone), _sums(backbone), shared_settings()

    def check(self) -> None:
        """Raises ValueError where weights were written into or exchanged, or code was hung into the model; quick."""
        check_shared(self._shared)
        self._compare(self._state, _state(self._backbone))

    def check_bits(self) -> None:
        """Raises ValueError where weights hold other values, however they were written (`.data`, numpy)."""
        self._compare(self._sums, _sums(self._backbone))

    def _compare(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        changed = [name for name in before | after if before.get(name) != after.get(name)]
        if changed:
            raise ValueError(
                f"it changed the backbone ({', '.join(changed[:3])}{', ...' * (len(changed) > 3)}): the model is not a "
                "router's to tune"
            )


def shared_settings() -> dict[str, Any]:
    """What of torch's own state, which all models share, changes what they compute or who is told of it."""
    every, kinds = torch.nn.modules.module, ("cpu", "cuda")
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's autocast": [(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds],
        "torch's function modes": torch._C._len_torch_function_stack(),
        "hooks on all modules": [len(getattr(every, f"_global{hooks}")) for hooks in HOOKS],
        "torch's float32 precision": torch.get_float32_matmul_precision(),
        "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch's number of threads": torch.get_num_threads(),
    }


def check_shared(before: dict[str, Any]) -> None:
    """Raises ValueError where some of `shared_settings` is not as it was."""
    after = shared_settings()
    changed = [name for name in before if before[name] != after[name]]
    if changed:
        raise ValueError(
            f"it changed {', '.join(changed)}, which all models of the process share: leave what you enter, and set "
            "what you need on your own tensors"
        )


def _state(backbone: Backbone) -> dict[str, Any]:
    """What rises or changes with every plain change."""
    weights = {name: (id(part), _version(part)) for name, part in backbone.state_dict(keep_vars=True).items()}
    modules = {
        f"module {name or 'backbone'}": (
            id(module),
            "forward" in vars(module),
            _hooks(module),
        )
        for name, module in backbone.named_modules()
    }
    return weights | modules | {"backbone.dense": id(backbone.dense)}


def _hooks(module: nn.Module) -> int:
    return sum(len(getattr(module, hooks)) for hooks in HOOKS)


def _version(weight: Tensor) -> int:
    return 0 if weight.is_inference() else weight._version


def _sums(backbone: Backbone) -> dict[str, Any]:
    """Sums of each weight's bits, exact and alike in every order of adding."""
    return {name: _sum(part.detach()) for name, part in backbone.state_dict().items() if part.numel()}


def _sum(weight: Tensor) -> list[int]:
    """The bits of its rows, and of its columns, each times its place: they tell also what was only moved."""
    bits = weight.contiguous().view(WHOLE[weight.element_size()])
    bits_RC = bits.reshape(len(bits) if bits.dim() else 1, -1)
    lines = [bits_RC.sum(axis, dtype=torch.int64) for axis in (0, 1)]
    return [int((line * torch.arange(1, len(line) + 1, device=line.device)).sum()) for line in lines]
