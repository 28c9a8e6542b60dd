"""Local search: from a fixed pattern, single-layer flips combined into swaps, while they help."""

from __future__ import annotations

import torch
from torch import Tensor

from duo.backbone import MODULES
from duo.search.approximate import NONE, Approximate, Position
from duo.search.patterns import promising_swaps


class Local(Approximate):
    """Swaps the modules of two layers of a token's route while that helps, for at most as many rounds as layers.

    A round evaluates every flip of one layer (which share the route's beginnings), takes the sum of two flips for what
    a swap promises, evaluates the `width` most promising swaps and takes the best if it is better than the route.
    """

    def _nodes(self) -> int:
        return max(1 + 2 * self.layers, self.width)

    def _routes(self, here: Position) -> tuple[Tensor, Tensor]:
        route_BL, value_B = here.route_BL.clone(), torch.empty_like(here.x_B1D[:, 0, 0])
        moving_R = torch.arange(len(route_BL), device=route_BL.device)
        for _ in range(self.layers):
            value_R, flip_RLM = self._flips(here)
            best_R, swapped_RL = self._best_swap(here, flip_RLM)
            better_R = best_R < value_R
            value_B[moving_R] = best_R.minimum(value_R)
            route_BL[moving_R] = swapped_RL.where(better_R[:, None], here.route_BL)
            here = here._replace(route_BL=swapped_RL).pick(better_R.nonzero().squeeze(1))
            moving_R = moving_R[better_R]
            if not len(moving_R):
                break
        return value_B, route_BL

    def _flips(self, here: Position) -> tuple[Tensor, Tensor]:
        """value_B of the routes, and value_BLM with one layer's module replaced (infinite for its own)."""
        route_BL, modules_A = here.route_BL, here.modules_A
        step_O = torch.arange(1, len(modules_A), device=route_BL.device)  # O: the other modules
        other_OBL = modules_A[(torch.searchsorted(modules_A, route_BL) + step_O[:, None, None]) % len(modules_A)]
        x_JB1D = here.x_B1D[None]
        for layer in range(self.layers):
            parent_I = torch.arange(len(x_JB1D) + len(step_O), device=route_BL.device)
            parent_I[len(x_JB1D) :] = 0  # the route itself, up to here
            module_IB = torch.cat((route_BL[:, layer].expand(len(x_JB1D), -1), other_OBL[..., layer]))
            x_JB1D = self._layer(here, layer, x_JB1D, parent_I, module_IB)
        value_JB = self._values(here, x_JB1D, torch.ones_like(x_JB1D[..., 0, 0], dtype=torch.bool))
        value_BLO = value_JB[1:].view(self.layers, len(step_O), len(route_BL)).permute(2, 0, 1)
        flip_BLM = value_JB.new_full((*route_BL.shape, len(MODULES)), torch.inf)
        return value_JB[0], flip_BLM.scatter(2, other_OBL.permute(1, 2, 0), value_BLO)

    def _best_swap(self, here: Position, flip_BLM: Tensor) -> tuple[Tensor, Tensor]:
        """value_B and route_BL of the best of the most promising swaps."""
        promise_BJ, swapped_BJL = promising_swaps(here.route_BL, flip_BLM, self.width)
        swapped_JBL, swaps_JB = swapped_BJL.transpose(0, 1), promise_BJ.T.isfinite()
        if not swaps_JB.any():  # nothing can be swapped
            return torch.full_like(here.x_B1D[:, 0, 0], torch.inf), here.route_BL
        x_JB1D = here.x_B1D.expand(len(swaps_JB), -1, -1, -1)
        every_J = torch.arange(len(swaps_JB), device=swaps_JB.device)
        for layer in range(self.layers):
            x_JB1D = self._layer(here, layer, x_JB1D, every_J, swapped_JBL[..., layer].where(swaps_JB, NONE))
        value_B, at_B = self._values(here, x_JB1D, swaps_JB).min(dim=0)
        return value_B, swapped_JBL[at_B, torch.arange(len(at_B), device=at_B.device)]
