"""A finished run as a model of lm-eval's own command: --model duo --model_args run=RUN."""

from __future__ import annotations

from typing import Any

import torch

from duo.inference.harness import DuoLM
from duo.stages.single import check_single
from duo.stages.writer import load_run, writer_of_run
from duo.storage.files import expand

DEFAULT_BATCH = 8


class RunLM(DuoLM):
    """The backbone of a run's folder under its router.

    Args:
        run: the folder.
        batch_size: contexts that are read at once; `auto` is 8.
        device: where to compute; lm-eval asks for cuda:0 by itself, which is the CPU where there is none.
        more: what lm-eval gives all models and this one has no use for.

    Raises:
        ValueError: no finished run.
    """

    def __init__(
        self, run: str, batch_size: int | str = DEFAULT_BATCH, device: str | None = None,
        **more: Any,
    ) -> None:  # fmt: skip
        folder = expand(run)
        recipe = load_run(folder, [])
        check_single(recipe, run)
        writer = writer_of_run(folder, recipe, _there(device))
        size = int(batch_size) if str(batch_size).isdecimal() else DEFAULT_BATCH
        super().__init__(*writer, size, recipe.seed)


def _there(device: str | None) -> torch.device:
    asked = torch.device(device or "cpu")
    return torch.device("cpu") if asked.type == "cuda" and not torch.cuda.is_available() else asked
