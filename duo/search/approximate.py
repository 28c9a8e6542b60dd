"""What approximate searches share: the candidates are all patterns of a token's counts, and never listed.

Every token has candidates of its own, so they are evaluated one position of all sequences at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from duo.backbone import BIG, SMALL, Run
from duo.backbone.attention import Attention, Places
from duo.backbone.flops import ffn_flops, tree_flops
from duo.search.exact import Found, Search
from duo.search.values import criterion_values, label_losses
from duo.search.walk import Children, run_pinned, shared

NONE = -1  # in place of a module: this child is not wanted, and not computed


class Position(NamedTuple):
    """One position of B sequences."""

    at: int
    row_B: Tensor  # which sequences of the batch
    count_BM: Tensor  # (skip, small, big) modules to spend
    route_BL: Tensor  # a route that spends them: the start pattern, or what became of it
    x_B1D: Tensor
    places: Places
    context: Run | None

    def pick(self, index_R: Tensor) -> Position:
        """The same of some sequences."""
        if torch.equal(index_R, torch.arange(len(self.row_B), device=index_R.device)):
            return self
        context = self.context
        if context is not None:
            held = [(key[index_R], value[index_R]) for key, value in context.keys_values]
            context = Run(context.tokens_BT[index_R], context.head, context.weight_BTLM, held)
        return self._replace(
            row_B=self.row_B[index_R],
            count_BM=self.count_BM[index_R],
            route_BL=self.route_BL[index_R],
            x_B1D=self.x_B1D[index_R],
            places=self.places.rows(index_R),
            context=context,
        )

    @property
    def modules_A(self) -> Tensor:
        """The modules that any of the tokens may use."""
        return (self.count_BM > 0).any(0).nonzero().squeeze(1)


class Approximate(Search):
    """What `beam` and `local` share: contexts, memory, and layers whose modules differ from token to token."""

    def __post_init__(self) -> None:
        if self.context == "same":
            raise ValueError("context='same' lets a whole sequence follow one candidate: search with method='exact'")
        if self.at_most or self.price or self.table:
            raise ValueError("at_most, price and table compare listed patterns: search with method='exact'")
        if self.width < 1:
            raise ValueError(f"width={self.width} must be at least 1")
        super().__post_init__()
        if len(self.code_P.unique()) != len(self.code_P):
            raise ValueError(
                f"approximate searches start from one pattern of each count, but {len(self.code_P)} patterns hold "
                f"{len(self.code_P.unique())} counts: give one of each, or search with method='exact'"
            )

    @torch.no_grad()
    def run(self) -> Found:
        """Searches token after token, behind the committed routes or the reference."""
        return self._in_turn()

    def _commit(self, at: int, route_B1L: Tensor, context: Run | None) -> Run:
        if not isinstance(self.context, Run):
            return super()._commit(at, route_B1L, context)
        end = at + 1
        held = [(key[:, :, :end], value[:, :, :end]) for key, value in self.context.keys_values]
        return Run(self.tokens_BT[:, :end], self.context.head, self.context.weight_BTLM[:, :end], held)

    def _best(self, at: int, wanted_B1: Tensor, context: Run | None) -> tuple[Tensor, Tensor]:
        device, batch = wanted_B1.device, len(wanted_B1)
        places = self.backbone.places(self.tokens_BT[:, : at + 1], at, at)
        big_B, skip_B = wanted_B1[:, 0] // (self.layers + 1), wanted_B1[:, 0] % (self.layers + 1)
        start_B = (wanted_B1 == self.code_P.to(device)).int().argmax(dim=1)
        whole = Position(
            at=at,
            row_B=torch.arange(batch, device=device),
            count_BM=torch.stack((skip_B, self.layers - big_B - skip_B, big_B), dim=-1),
            route_BL=self.pattern_PL.to(device)[start_B],
            x_B1D=self.backbone.embed(self.tokens_BT[:, at : at + 1], places),
            places=places,
            context=context,
        )
        most = self.memory // self._least_bytes()
        value_B, route_BL = torch.zeros_like(whole.x_B1D[:, 0, 0]), whole.route_BL.clone()
        real_R = self.real_BT[:, at].nonzero().squeeze(1)  # padding keeps its start pattern, at no cost
        for index_R in real_R.split(most) if len(real_R) else ():
            value_B[index_R], route_BL[index_R] = self._routes(whole.pick(index_R))
        return value_B[:, None], route_BL[:, None]

    def _nodes(self) -> int:
        """The most nodes that are held at once."""
        raise NotImplementedError

    def _least_bytes(self) -> int:
        return self._bytes_per_node(self._nodes())

    def _routes(self, here: Position) -> tuple[Tensor, Tensor]:
        """value_B and route_BL of the best routes found."""
        raise NotImplementedError

    def _layer(self, here: Position, layer: int, x_JB1D: Tensor, parent_I: Tensor, module_IB: Tensor) -> Tensor:
        """One routed layer: I children of J nodes, each token with a module of its own; attention once for each node.

        Pinned layers in front of it, and behind the last, come with it. To the layer every token is a node of its own
        (N = J * B): its tokens take different modules.
        """
        config, x_JB1D = self.backbone.config, self._pinned(here, layer, x_JB1D)
        shape_JB1D, batch = x_JB1D.shape, len(here.row_B)
        attend_together = shared(here.places, here.context)

        def attend(attention: Attention, layer: int, x_N1D: Tensor) -> Tensor:
            return attend_together(attention, layer, x_N1D.view(shape_JB1D)).flatten(0, 1)

        parent_N = (parent_I[:, None] * batch + torch.arange(batch, device=parent_I.device)).flatten()
        at = self.backbone.routed[layer]
        children = Children.of(attend, at, parent_N, module_IB.flatten())
        y_N1D = self.backbone.block(at).layer(x_JB1D.flatten(0, 1), children)
        computed_M = [len(child_R) for child_R in children.child_MR]
        position_B1 = here.places.position_BS.expand(batch, 1)
        self.layer_evaluations += sum(computed_M)
        # attention counts in full, also in the rare layer whose tokens all skip the block
        self.flops += tree_flops(config, attended=len(x_JB1D), small=0, big=0, leaves=0, position=position_B1)
        self.flops += computed_M[SMALL] * ffn_flops(config, config.small)
        self.flops += computed_M[BIG] * ffn_flops(config, config.big)
        y_IB1D = y_N1D.view(len(parent_I), *shape_JB1D[1:])
        return self._pinned(here, self.layers, y_IB1D) if layer == self.layers - 1 else y_IB1D

    def _pinned(self, here: Position, layer: int, x_JB1D: Tensor) -> Tensor:
        """The streams behind the pinned layers in front of a routed one."""
        x_JB1D, spent = run_pinned(self.backbone, layer, x_JB1D, shared(here.places, here.context))
        self.layer_evaluations += spent.layers * len(here.row_B)
        position_B1 = here.places.position_BS.expand(len(here.row_B), 1)
        self.flops += tree_flops(self.backbone.config, spent.attended, spent.small, spent.big, 0, position_B1)
        return x_JB1D

    def _values(self, here: Position, x_JB1D: Tensor, wanted_JB: Tensor) -> Tensor:
        """value_JB of streams, as if they were the last layer's; infinite where none is wanted."""
        value_JB = x_JB1D.new_full(wanted_JB.shape, torch.inf)
        if not wanted_JB.any():
            return value_JB
        row_N, x_1N1D = here.row_B.expand_as(wanted_JB)[wanted_JB], x_JB1D[wanted_JB][None]
        if self.criterion is not None:
            targets = None if self.targets is None else self.targets[row_N, here.at, None]
            value_1N1 = criterion_values(self.backbone, x_1N1D, self.criterion, targets)
        else:
            assert self.label_BT is not None
            value_1N1 = label_losses(self.backbone, x_1N1D, self.label_BT[row_N, here.at, None])
        position_N = torch.zeros(len(row_N))  # the head costs the same everywhere
        self.flops += tree_flops(self.backbone.config, attended=0, small=0, big=0, leaves=1, position=position_N)
        return value_JB.masked_scatter(wanted_JB, value_1N1.to(value_JB))
