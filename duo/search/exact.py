"""Search: every candidate of every token, in one of three contexts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from duo.backbone import BIG, MODULES, PADDING, SKIP, SMALL, Backbone, Run
from duo.backbone.attention import Places
from duo.backbone.flops import run_flops, token_flops, tree_flops
from duo.progress import count, track
from duo.search.best import Best
from duo.search.floors import EXACT, Floors
from duo.search.patterns import check_patterns, meets, pattern_codes, pattern_counts
from duo.search.trie import Trie
from duo.search.values import Criterion, criterion_values, label_losses
from duo.search.walk import Attend, same, shared, walk

STATE_BYTES = 1 << 20  # of the states computed at once: about what stays in the cache
MEMORY = 256 << 20

Keep = Callable[[Tensor, Tensor], None]
"""keep(pattern_J, loss_JBT)"""


class Found(NamedTuple):
    """The best routes, and what they promise; G counts the budgets that were asked for."""

    loss_BTG: Tensor
    """The chosen candidate's loss in nats (the criterion's value, if there is one) at each token."""
    route_BTGL: Tensor
    """The chosen candidate."""
    mean_loss_P: Tensor | None
    """Mean of each pattern over the scored tokens (of a criterion: the real ones), under `same` and a reference."""
    table_BTP: Tensor | None
    """Every pattern's loss at every token, if asked for."""


@dataclass
class Search:
    """One search: what is given, and the costs it runs up.

    Raises:
        ValueError: before any work, for impossible patterns, budgets, contexts or memory.
    """

    backbone: Backbone
    tokens_BT: Tensor
    label_BT: Tensor | None
    pattern_PL: Tensor
    wanted_BTG: Tensor  # codes of the counts asked for; G may be 0
    context: str | Run = "committed"
    criterion: Criterion | None = None
    targets: Tensor | None = None
    unit: str = "token"
    price: float = 0.0
    at_most: bool = False
    table: bool = False
    memory: int = MEMORY
    width: int = 8  # of approximate searches
    flops: float = 0.0
    layer_evaluations: int = 0
    _tries: dict[tuple[int, ...] | None, tuple[Trie, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layers = len(self.backbone.routed)
        check_patterns(self.pattern_PL, self.layers)
        self.pattern_PL = self.pattern_PL.cpu()
        self.code_P = pattern_codes(self.pattern_PL)
        self.real_BT = self.tokens_BT != PADDING
        for wanted in self.wanted_BTG.unique().tolist():
            if not meets(self.code_P, wanted, self.layers, self.at_most).any():
                big, skip = divmod(wanted, self.layers + 1)
                raise ValueError(f"none of the {len(self.code_P)} patterns has {big} big and {skip} skip modules")
        if self.context not in ("same", "committed") and not isinstance(self.context, Run):
            raise ValueError(f"context={self.context!r} is unknown: give 'same', 'committed' or a Run")
        if self.unit not in ("token", "sequence", "batch") or (self.unit != "token" and self.context != "same"):
            raise ValueError(f"unit={self.unit!r} must be token, or, under context 'same', sequence or batch")
        if self.context == "committed" and (self.table or not self.wanted_BTG.shape[-1]):
            raise ValueError("context 'committed' needs a budget and has no table: no pattern is followed throughout")
        if isinstance(self.context, Run) and not torch.equal(self.context.tokens_BT, self.tokens_BT):
            raise ValueError("the context was made from other tokens than those searched")
        if (least := self._least_bytes()) > self.memory:
            raise ValueError(f"memory={self.memory} bytes is too little for this batch: at least {least} are needed")

    @torch.no_grad()
    def run(self) -> Found:
        """Enumerates, and returns the best."""
        return self._in_turn() if self.context == "committed" else self._at_once()

    def _at_once(self) -> Found:
        """Contexts `same` and reference: all positions together, all budgets from one walk."""
        context = self.context if isinstance(self.context, Run) else None
        trie, index_P = self._candidates(None)
        best = Best(self.code_P, self.real_BT, self.unit)
        scored = int((self.real_BT if self.label_BT is None else self.label_BT >= 0).sum())
        mean_P = torch.zeros(len(index_P))
        table_BTP = torch.empty(*self.tokens_BT.shape, len(index_P)) if self.table else None

        def keep(pattern_J: Tensor, loss_JBT: Tensor) -> None:
            mean_P[pattern_J] = (loss_JBT.double().sum((1, 2)) / scored).float().cpu()
            if table_BTP is not None:
                table_BTP[..., pattern_J] = loss_JBT.permute(1, 2, 0).float().cpu()

        places = self.backbone.places(self.tokens_BT, 0, 0 if context is None else self.tokens_BT.shape[1])
        attend = same(places) if context is None else shared(places, context)
        step = Step(slice(None), self.backbone.embed(self.tokens_BT, places), places, attend)
        self._walk(trie, index_P, step, best, keep)
        chosen = []
        for wanted_BT in self.wanted_BTG.unbind(-1):
            loss_BT, pattern_BT = best.of(wanted_BT, self.layers, self.at_most)
            chosen.append((loss_BT, self.pattern_PL.to(pattern_BT.device)[pattern_BT]))
        return self._found(chosen, mean_P, table_BTP)

    def _in_turn(self) -> Found:
        """Token after token, each behind what the tokens before it leave for it to attend to."""
        chosen = []
        for wanted_BT in self.wanted_BTG.unbind(-1):
            context: Run | None = None
            losses, routes = [], []
            for at, wanted_B1 in enumerate(track(wanted_BT.split(1, dim=1), "token")):
                loss_B1, route_B1L = self._best(at, wanted_B1, context)
                losses.append(loss_B1)
                routes.append(route_B1L)
                context = self._commit(at, route_B1L, context)
            chosen.append((torch.cat(losses, dim=1), torch.cat(routes, dim=1)))
        return self._found(chosen, None, None)

    def _best(self, at: int, wanted_B1: Tensor, context: Run | None) -> tuple[Tensor, Tensor]:
        """loss_B1 and route_B1L of the best candidates at one position."""
        real_B1 = self.real_BT[:, at : at + 1]
        if real_B1.any():  # padding asks for what a real token does: it brings no candidates of its own
            wanted_B1 = wanted_B1.where(real_B1, wanted_B1[real_B1].max())
        trie, index_P = self._candidates(wanted_B1.unique().tolist())
        best = Best(self.code_P[index_P], real_B1, "token")
        places = self.backbone.places(self.tokens_BT[:, : at + 1], at, at)
        x_B1D = self.backbone.embed(self.tokens_BT[:, at : at + 1], places)
        self._walk(trie, index_P, Step(slice(at, at + 1), x_B1D, places, shared(places, context)), best)
        loss_B1, pattern_B1 = best.of(wanted_B1, self.layers, self.at_most)
        return loss_B1, self.pattern_PL[index_P].to(pattern_B1.device)[pattern_B1]

    def _commit(self, at: int, route_B1L: Tensor, context: Run | None) -> Run:
        """Runs one token on its chosen route, behind the context."""
        weight_B1LM = torch.nn.functional.one_hot(route_B1L, len(MODULES)).float()
        run = self.backbone(self.tokens_BT[:, at : at + 1], lambda x, layer: weight_B1LM[:, :, layer], context, at)
        position_B1 = self.backbone.places(run.tokens_BT, at, at).position_BS.expand(len(route_B1L), 1)
        self.flops += float(run_flops(self.backbone.config, weight_B1LM, position_B1).sum())
        self.layer_evaluations += self.backbone.config.layers * int((position_B1 >= 0).sum())
        return run

    def _walk(self, trie: Trie, index_P: Tensor, step: Step, best: Best, keep: Keep | None = None) -> None:
        """One walk over candidates, into the reducers."""
        backbone = self.backbone
        count_PM = pattern_counts(self.pattern_PL[index_P]).double().to(step.x_BSD.device)
        floors = None if keep else self._floors(step)

        def leaf(pattern_J: Tensor, x_JBSD: Tensor) -> None:
            more_JBS = self._prices(count_PM[pattern_J.to(count_PM.device)], step) if self.price else None
            if floors is None:
                loss_JBS = self._losses(step, x_JBSD)
            else:
                loss_JBS = best.losses(pattern_J, x_JBSD, more_JBS, floors)
            loss_JBS = loss_JBS.masked_fill(~self.real_BT[:, step.at], 0)
            best.update(pattern_J, loss_JBS if more_JBS is None else loss_JBS + more_JBS, loss_JBS)
            if keep is not None:
                keep(pattern_J, loss_JBS)
            part.step(len(pattern_J))

        x_BSD = step.x_BSD
        state = x_BSD.numel() * x_BSD.element_size()
        chunk = max(1, min(STATE_BYTES // state, self.memory // self._bytes_per_node(x_BSD[..., 0].numel())))
        with count("pattern", len(index_P)) as part:
            spent = walk(backbone, trie, x_BSD, attend=step.attend, chunk=chunk, leaf=leaf)
        position_BS = step.places.position_BS.expand(x_BSD.shape[:2])
        position_N = position_BS[position_BS >= 0]  # what padding made the walk compute reaches nobody
        self.layer_evaluations += spent.layers * len(position_N)
        costs = spent.attended, spent.small, spent.big, spent.leaves
        # every leaf with its head: what floors save differs from token to token, and costs shall not
        self.flops += tree_flops(backbone.config, *costs, position_N)

    def _losses(self, step: Step, x_JBSD: Tensor) -> Tensor:
        """loss_JBS of all candidates, or the criterion's values."""
        if self.criterion is not None:
            targets = None if self.targets is None else self.targets[:, step.at]
            return criterion_values(self.backbone, x_JBSD, self.criterion, targets)
        assert self.label_BT is not None
        return label_losses(self.backbone, x_JBSD, self.label_BT[:, step.at])

    def _floors(self, step: Step) -> Floors | None:
        """What rules candidates out; None where it could be wrong (a criterion, coarse numbers) or has not paid."""
        # on a GPU the head is cheap, and each floor is waited for
        if self.label_BT is None or not step.x_BSD.is_cpu or step.x_BSD.dtype not in EXACT:
            return None
        return Floors(self.backbone, self.label_BT[:, step.at])

    def _prices(self, count_JM: Tensor, step: Step) -> Tensor:
        """What candidates of these counts cost in nats, (J, B, S)."""
        config, count_MJ11 = self.backbone.config, count_JM.T[..., None, None]
        attending = config.layers - count_MJ11[SKIP] if config.skip_scope == "block" else config.layers
        big_J11 = count_MJ11[BIG] + config.layers - self.layers  # pinned layers too
        cost_JBS = token_flops(config, count_MJ11[SMALL], big_J11, attending, step.places.position_BS)
        return self.price * cost_JBS.to(step.x_BSD)

    def _candidates(self, wanted: Sequence[int] | None) -> tuple[Trie, Tensor]:
        """The tree of the patterns that meet any of these codes (None: of all), and their indices; built once."""
        key = None if wanted is None else tuple(wanted)
        if key not in self._tries:
            meet_P = torch.ones_like(self.code_P, dtype=torch.bool)
            if key is not None:
                meet_P = torch.stack([meets(self.code_P, code, self.layers, self.at_most) for code in key]).any(0)
            index_P = meet_P.nonzero().squeeze(1)
            self._tries[key] = Trie.of(self.pattern_PL[index_P]), index_P
        return self._tries[key]

    def _found(self, chosen: list[tuple[Tensor, Tensor]], mean_P: Tensor | None, table_BTP: Tensor | None) -> Found:
        device, shape = self.tokens_BT.device, self.tokens_BT.shape
        if not chosen:
            empty = torch.empty(*shape, 0, device=device)
            return Found(
                empty, torch.empty(*shape, 0, self.layers, dtype=torch.int64, device=device), mean_P, table_BTP
            )
        loss_BTG, route_BTGL = (torch.stack(parts, dim=2) for parts in zip(*chosen, strict=True))
        return Found(loss_BTG, route_BTGL, mean_P, table_BTP)

    def _least_bytes(self) -> int:
        """What a search of this batch needs at least."""
        return self._bytes_per_node(
            len(self.tokens_BT) * (1 if self.context == "committed" else self.tokens_BT.shape[1])
        )

    def _bytes_per_node(self, rows: int) -> int:
        """About what one node takes on so many tokens: state, inner states, attention, children held at each depth."""
        config = self.backbone.config
        keys = self.tokens_BT.shape[1] if self.context != "same" else 0
        return 4 * rows * (config.width * (12 + len(MODULES) * self.layers) + 3 * config.big + 3 * config.heads * keys)


class Step(NamedTuple):
    """The tokens a walk is about."""

    at: slice
    x_BSD: Tensor
    places: Places
    attend: Attend
