"""What is kept of a search: the best pattern per count of modules and token, means, and the full table if asked for."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from duo.search.floors import Floors
from duo.search.patterns import meets


class Best:
    """The best pattern of each (skip, small, big) count for each token, as candidates stream by.

    Args:
        code_P: the count of each pattern, as a code.
        real_BS: False for padding.
        unit: values are compared per `token`, or averaged over the real tokens of a `sequence` or of the whole `batch`
            before.
    """

    def __init__(self, code_P: Tensor, real_BS: Tensor, unit: str) -> None:
        self.code_C = code_P.unique()
        self._row_P = torch.searchsorted(self.code_C, code_P)
        self._unit = unit
        self._padding_BS = None if real_BS.all() else ~real_BS
        size, device = (len(self.code_C), *real_BS.shape), real_BS.device
        self.value_CBS = torch.full(size, torch.inf, device=device)
        self.loss_CBS = torch.full(size, torch.inf, device=device)
        self.pattern_CBS = torch.zeros(size, dtype=torch.int64, device=device)

    def update(self, pattern_J: Tensor, value_JBS: Tensor, loss_JBS: Tensor) -> None:
        """Takes the values (compared) and losses (kept) of some patterns."""
        dims = {"token": (), "sequence": (2,), "batch": (1, 2)}[self._unit]
        if dims:
            value_JBS = self._mean(value_JBS, dims).expand_as(value_JBS)
        for row, index_R in self._rows(pattern_J):
            on_device_R = index_R.to(value_JBS.device)
            value_BS, at_BS = value_JBS[on_device_R].min(dim=0)
            loss_BS = loss_JBS[on_device_R].gather(0, at_BS[None])[0]
            better_BS = value_BS < self.value_CBS[row]
            pattern_BS = pattern_J[index_R].to(value_JBS.device)[at_BS]
            for kept, new_BS in (
                (self.value_CBS, value_BS), (self.loss_CBS, loss_BS), (self.pattern_CBS, pattern_BS),
            ):  # fmt: skip
                kept[row] = torch.where(better_BS, new_BS, kept[row])

    def losses(self, pattern_J: Tensor, x_JBSD: Tensor, more_JBS: Tensor | None, floors: Floors) -> Tensor:
        """loss_JBS of some patterns' streams, infinite where it would change nothing here; see `Floors.losses`."""
        loss_JBS = x_JBSD.new_empty(x_JBSD.shape[:3])
        for row, index_R in self._rows(pattern_J):
            at_R = index_R.to(x_JBSD.device)
            more_RBS = None if more_JBS is None else more_JBS[at_R]
            loss_JBS[at_R] = floors.losses(x_JBSD[at_R], self.value_CBS[row], more_RBS)
        return loss_JBS

    def _rows(self, pattern_J: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Each count that occurs, and which of the patterns have it."""
        row_J = self._row_P[pattern_J]
        for row in row_J.unique().tolist():
            yield row, (row_J == row).nonzero().squeeze(1)

    def _mean(self, value_JBS: Tensor, dims: tuple[int, ...]) -> Tensor:
        """Means over the real tokens; 0 where there are none."""
        if self._padding_BS is None:
            return value_JBS.mean(dims, keepdim=True)
        real_1BS = ~self._padding_BS[None]
        sum_JBS = value_JBS.where(real_1BS, 0).sum(dims, keepdim=True)
        return sum_JBS / real_1BS.sum(dims, keepdim=True).clamp(min=1)

    def of(self, wanted_BS: Tensor, layers: int, at_most: bool) -> tuple[Tensor, Tensor]:
        """loss_BS and pattern_BS of the best pattern that meets each token's count (a code)."""
        loss_BS = torch.full_like(self.loss_CBS[0], torch.inf)
        pattern_BS = torch.zeros_like(self.pattern_CBS[0])
        for wanted in wanted_BS.unique().tolist():
            row_R = meets(self.code_C, wanted, layers, at_most).nonzero().squeeze(1).to(loss_BS.device)
            at_BS = self.value_CBS[row_R].argmin(dim=0)[None]
            here_BS = wanted_BS == wanted
            loss_BS = torch.where(here_BS, self.loss_CBS[row_R].gather(0, at_BS)[0], loss_BS)
            pattern_BS = torch.where(here_BS, self.pattern_CBS[row_R].gather(0, at_BS)[0], pattern_BS)
        return loss_BS, pattern_BS
