"""Whether a router has left the backbone alone."""

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
        self._state, self._sums = _state(backbone), _sums(backbone)

    def check(self) -> None:
        """Raises ValueError where weights were written into or exchanged, or code was hung into the model; quick."""
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
    """A sum of each weight's bits, exact and alike in every order."""
    return {
        name: int(part.detach().contiguous().view(WHOLE[part.element_size()]).sum(dtype=torch.int64))
        for name, part in backbone.state_dict().items()
        if part.numel()
    }
