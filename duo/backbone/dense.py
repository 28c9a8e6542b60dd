"""How the dense parts of a layer are run in a model's own pass: as they stand, compiled, or twice to hold less.

A layer is dense up to its gate, and in each FFN behind it; what lies between, a router's code and the sorting of
tokens by module, is never compiled and never asked twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

VARIANTS = 64  # of one part: small and big FFNs, with and without gradients, of several backbones in one process


@dataclass(frozen=True)
class Dense:
    """How the dense parts are run; no weights or routes but by rounding depend on it."""

    backend: str | None = None
    """Of `torch.compile` (None: not compiled)."""
    checkpointed: bool = False
    """Whether the backward pass computes what lies within a layer once more, instead of holding it."""

    def compiled(self, part: Callable[..., Any]) -> Callable[..., Any]:
        """A part of the model, a function that stands in a module or class, compiled if parts are."""
        return part if self.backend is None else compiled(part, self.backend)

    def run(self, part: Callable[..., Any], *arguments: Any) -> Any:
        """What a part gives; held until the backward pass are its arguments alone, if it is computed once more."""
        if not (self.checkpointed and torch.is_grad_enabled()):
            return part(*arguments)
        # its first call imports torch's compiler, as does compiling: seconds, and hundreds of megabytes
        from torch.utils.checkpoint import checkpoint

        # no generator's state is kept: no part draws from one
        return checkpoint(part, *arguments, use_reentrant=False, preserve_rng_state=False)

    def on_rows(self, ffn: Callable[..., Tensor], part: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """An FFN for any number of rows; `part` is its function, called as `part(ffn, x_RD)`."""
        if self.backend is None:
            return ffn
        quick = compiled(part, self.backend, True)

        def run(x_RD: Tensor, *product: Any) -> Tensor:
            # compiled code is made anew for none and for one row: such are not worth it
            return ffn(x_RD, *product) if product or len(x_RD) < 2 else quick(ffn, x_RD)

        return run


PLAIN = Dense()


@lru_cache(None)
def compiled(part: Callable[..., Any], backend: str, any_rows: bool | None = None) -> Callable[..., Any]:
    """A function of the model, compiled when it is first called."""
    import torch._dynamo.config as config  # as a module: seconds

    # beyond, torch goes on uncompiled
    config.recompile_limit = max(config.recompile_limit, VARIANTS)
    return torch.compile(part, backend=backend, dynamic=any_rows)
