"""Beam search: layer by layer, the best few beginnings of every token's route."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from duo.backbone import MODULES
from duo.search.approximate import NONE, Approximate, Position


class Beam(Approximate):
    """Keeps the `width` best beginnings of a route, judged as if the model ended there (the logit lens).

    A beginning that leaves too few layers for the modules still to be spent is dropped. The start pattern's own never
    is, so that what is found is never worse than the start pattern. Wide enough to drop nothing else, it is exact.
    """

    def _nodes(self) -> int:
        return len(MODULES) * self.width

    def _routes(self, here: Position) -> tuple[Tensor, Tensor]:
        modules_A, value_JB = here.modules_A, here.x_B1D.new_zeros(1, len(here.row_B))
        x_JB1D, left_JBM = here.x_B1D[None], here.count_BM[None]
        route_JBL = here.route_BL[None, :, :0]
        for layer in range(self.layers):
            parent_I = torch.arange(len(x_JB1D), device=modules_A.device).repeat(len(modules_A))
            module_IB = modules_A.repeat_interleave(len(x_JB1D))[:, None].expand(-1, len(here.row_B))
            left_IBM = left_JBM[parent_I] - F.one_hot(module_IB, len(MODULES))
            route_IBL = torch.cat((route_JBL[parent_I], module_IB[..., None]), dim=-1)
            fits_IB = (left_IBM >= 0).all(-1)
            x_IB1D = self._layer(here, layer, x_JB1D, parent_I, module_IB.where(fits_IB, NONE))
            value_IB = self._judge(here, x_IB1D, fits_IB, route_IBL)
            most = min(self.width, int(fits_IB.sum(0).max()))
            value_JB, kept_JB = value_IB.topk(most, dim=0, largest=False)
            x_JB1D, left_JBM = _take(x_IB1D, kept_JB), _take(left_IBM, kept_JB)
            route_JBL = _take(route_IBL, kept_JB)
        return value_JB[0], route_JBL[0]

    def _judge(self, here: Position, x_IB1D: Tensor, fits_IB: Tensor, route_IBL: Tensor) -> Tensor:
        """value_IB of beginnings, infinite for those that do not fit; not looked at where all of them are kept."""
        whole = route_IBL.shape[-1] == self.layers
        if not whole and int(fits_IB.sum(0).max()) <= self.width:
            return torch.zeros_like(x_IB1D[..., 0, 0]).masked_fill(~fits_IB, torch.inf)
        value_IB = self._values(here, x_IB1D, fits_IB)
        start_IB = (route_IBL == here.route_BL[:, : route_IBL.shape[-1]]).all(-1)
        return value_IB if whole else value_IB.masked_fill(start_IB, -torch.inf)


def _take(part_IBX: Tensor, kept_JB: Tensor) -> Tensor:
    """part_JBX: for every token the children that are kept."""
    rows_B = torch.arange(kept_JB.shape[1], device=kept_JB.device)
    return part_IBX[kept_JB, rows_B]
