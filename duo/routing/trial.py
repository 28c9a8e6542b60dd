"""One batch on one backbone: all that a router may do, metered."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from duo.backbone import MODULES, PADDING, Backbone, Budget, Counts, Gate, Run
from duo.backbone.flops import tree_flops
from duo.backbone.model import count_positions
from duo.data.batch import Batch
from duo.routing.loss import run_loss
from duo.routing.meter import Meter, MeterView, charged, check_plain, meter_of, note_labels
from duo.routing.uniform import EVALUATE, ROUND_COUNTS, hash_key, uniform
from duo.search import MEMORY, METHODS, Criterion, Found
from duo.search.patterns import codes
from duo.search.prediction import mean_prediction

if TYPE_CHECKING:
    from typing_extensions import Self  # of Python from 3.11 on


class NoLabels(ValueError):
    """A router asked for the labels of a trial that holds none; `evaluate` then begins anew with them."""

    def __init__(self, hint: str) -> None:
        where = "its tokens are being generated, or are scored where no label is in reach"
        super().__init__(f"this trial has no labels, for {where}: {hint}")


class Trial:
    """One batch on one backbone, and what a router may do with it.

    Args:
        backbone: the model; its weights are not a router's to change.
        tokens_BT: inputs; -1 is left padding.
        labels_BT: the token after each input, -1 where there is none to score; None in generation and evaluation.
        sequence_B: ids of the sequences; default: their place in the batch.
        domain: the calibration set or hold-out that the batch comes from.
        tokenizer: digest of the tokenizer that made the tokens; empty where nobody says.
        progress: share of training steps done; 1 in evaluation.
        seed, purpose, step: what `uniform` depends on, besides the place of a token.
        meter: counts costs, and stays with whoever gives it: `trial.meter` shows its numbers; default: a new one.
    """

    def __init__(
        self,
        backbone: Backbone,
        tokens_BT: Tensor,
        labels_BT: Tensor | None = None,
        sequence_B: Tensor | None = None,
        *,
        domain: str = "",
        tokenizer: str = "",
        progress: float = 1.0,
        seed: int = 0,
        purpose: str = EVALUATE,
        step: int = 0,
        meter: Meter | None = None,
    ) -> None:
        self.tokens_BT = tokens_BT
        self.sequence_B = torch.arange(len(tokens_BT), device=tokens_BT.device) if sequence_B is None else sequence_B
        self.domain, self.tokenizer = domain, tokenizer
        self.progress = progress
        meter = Meter() if meter is None else meter
        self.__view, self.__backbone = MeterView(meter), backbone
        # a padding token predicts nothing, not even the first real one
        self._labels_BT = None if labels_BT is None else labels_BT.masked_fill(tokens_BT == PADDING, PADDING)
        self._seed, self._purpose, self._step = seed, purpose, step
        self._shape = tokens_BT.shape
        if meter.enabled:  # not while training: to count is to wait for the device
            meter.begin(int((tokens_BT != PADDING).sum()))

    @classmethod
    def of(cls, batch: Batch, backbone: Backbone, **about: Any) -> Self:
        """A trial of a batch's sequences; `about` as in `Trial`."""
        return cls.without_labels(batch, backbone, labels_BT=batch.labels_BT, **about)

    @classmethod
    def without_labels(cls, batch: Batch, backbone: Backbone, **about: Any) -> Self:
        """A trial of a batch's sequences as evaluation and generation have it: no label is in its reach."""
        known: dict[str, Any] = {"sequence_B": batch.sequence_B, "domain": batch.domain, "tokenizer": batch.tokenizer}
        return cls(backbone, batch.tokens_BT, **known | about)

    @property
    def meter(self) -> MeterView:
        """What the trial has cost so far."""
        return self.__view

    @property
    def layers(self) -> int:
        """Layers of the backbone that are routed."""
        return len(self.__backbone.routed)

    @property
    def vocabulary(self) -> int:
        """Tokens that the backbone predicts."""
        return self.__backbone.config.vocabulary

    @property
    def position_BT(self) -> Tensor:
        """Positions counted from the first real token; negative for padding."""
        return count_positions(self.tokens_BT)

    def uniform(self, draw: int = 0) -> Tensor:
        """uniform_BTL in [0, 1): a hash of (seed, purpose, step, sequence id, position, layer, draw).

        It depends neither on the batch row, nor on the process, nor on the order of calls.
        """
        key = hash_key(self._seed, self._purpose, self._step, draw)
        return uniform(key, self.sequence_B, self.position_BT, self.layers)

    def counts(self, budget: Budget | Counts) -> Tensor:
        """count_BTM: whole numbers of (skip, small, big) modules summing to L at each position.

        A fractional budget is rounded up at a hashed share of the positions, the same ones for every router, by one
        hash of (seed, sequence id, position).

        Raises:
            ValueError: the budget needs more modules than there are layers.
        """
        skip, _, big = budget.of(self.layers)
        # neither step nor the trial's purpose: all who ask at one seed get the same counts
        uniform_BT = uniform(hash_key(self._seed, ROUND_COUNTS, 0, 0), self.sequence_B, self.position_BT, 1)[
            ..., 0
        ].double()
        # one number moves all edges between modules, and not the two ends: so the counts sum to L
        edge = torch.tensor([0, skip, self.layers - big, self.layers], device=uniform_BT.device).double()
        return (edge + uniform_BT[..., None]).floor().diff(dim=-1).long()

    def part(self, sequences: int, tokens: int) -> Trial:
        """The first so many sequences and tokens, labels included, on the same meter, with the same `uniform`."""
        part = copy.copy(self)  # keeps its meter and _shape: passes and promises stay those of the whole batch
        part.tokens_BT, part.sequence_B = self.tokens_BT[:sequences, :tokens], self.sequence_B[:sequences]
        part._labels_BT = None if self._labels_BT is None else self._labels_BT[:sequences, :tokens]
        return part

    def run(self, gate: Gate, context: Run | None = None) -> Run:
        """One pass of the whole trial through the backbone, under `gate`; metered."""
        with meter_of(self.meter).counting():  # of a trial that no router asked for
            return self.__backbone(self.tokens_BT, gate, context)

    def search(
        self,
        pattern_PL: Tensor,
        budgets: Sequence[Budget | Counts | Tensor] = (),
        context: str | Run = "committed",
        criterion: Criterion | None = None,
        unit: str = "token",
        price: float = 0.0,
        *,
        targets: Tensor | None = None,
        at_most: bool = False,
        table: bool = False,
        memory: int = MEMORY,
        method: str = "exact",
        width: int = 8,
    ) -> Found:
        """The best of many patterns for every token; metered.

        Args:
            pattern_PL: the candidates (see `duo.search.all_patterns`, `patterns_of`); or, for `beam` and `local`, one
                pattern of each count that occurs, to start from: all patterns of these counts are candidates.
            budgets: G budgets, each choosing among the candidates of exactly its counts (fractional ones rounded as in
                `counts`); or counts as a tensor that broadcasts to (B, T, M), to vary them along the sequence.
            context: what earlier tokens do: `same`, `committed`, or a run of these tokens (see `duo.search`).
            criterion: `criterion(logits_NV[, targets_N...])` in place of the label's loss; then no label is consulted.
            unit: under `same`, values may be averaged over a `sequence` or the `batch` before the best is taken.
            price: nats per FLOP, added to the values that are compared.
            targets: the criterion's, of leading shape (B, T).
            at_most: candidates may also have fewer big modules, and more skips where the budget has any.
            table: whether every pattern's loss at every token is returned.
            memory: bytes for intermediate states.
            method: `exact` (enumeration), `beam` or `local`: approximate, for models too deep to enumerate, under
                `committed` or a reference, without price, at_most and table (see `duo.search`).
            width: beginnings that `beam` keeps, swaps that `local` tries a round.

        Raises:
            ValueError: before any work, for impossible patterns, budgets, contexts, memory or methods.
            NoLabels: no labels and no criterion.
        """
        if method not in METHODS:
            raise ValueError(f"method={method!r} is unknown: choose one of {', '.join(METHODS)}")
        if criterion is None and self._labels_BT is None:
            raise NoLabels("give a criterion")
        counts = [part if isinstance(part, Tensor) else self.counts(part) for part in budgets]
        for part in (pattern_PL, targets, *counts):
            check_plain(part)
        shape = (*self.tokens_BT.shape, len(MODULES))
        wanted = [codes(count.to(self.tokens_BT.device).expand(shape), self.layers) for count in counts]
        wanted_BTG = torch.stack(wanted, dim=-1) if wanted else self.tokens_BT.new_empty(*shape[:2], 0)
        payer = charged(self.meter)
        search = METHODS[method](
            backbone=self.__backbone,
            tokens_BT=self.tokens_BT,
            label_BT=self._labels_BT if criterion is None else None,
            pattern_PL=pattern_PL,
            wanted_BTG=wanted_BTG,
            context=context,
            criterion=None if criterion is None else payer.counted(criterion),
            targets=targets,
            unit=unit,
            price=price,
            at_most=at_most,
            table=table,
            memory=memory,
            width=width,
        )
        if criterion is None:
            note_labels(self.meter)  # before it runs: a search that fails has read them too
        with payer.in_closed_form():
            found = search.run()
        payer.charge(self.__backbone.config, search.layer_evaluations, search.flops)
        # of several budgets none is the promise, a criterion's value is no loss, and a part speaks for no other token
        promises = len(wanted) == 1 and criterion is None and self.tokens_BT.shape == self._shape
        meter_of(self.meter).promised_loss = found.loss_BTG[..., 0].clone() if promises else None
        return found

    def prediction(self, pattern_PL: Tensor) -> Tensor:
        """probability_BTV of the next token, averaged over candidates in context `same`; metered, knows no label.

        It is the target of a label-free search (`criterion=expected_loss`).
        """
        payer, config = charged(self.meter), self.__backbone.config
        with payer.in_closed_form():
            probability_BTV, spent = mean_prediction(self.__backbone, self.tokens_BT, pattern_PL)
            position_N = self.position_BT[self.position_BT >= 0]
            flops = tree_flops(config, spent.attended, spent.small, spent.big, spent.leaves, position_N)
        payer.charge(config, spent.layers * len(position_N), flops)
        return probability_BTV

    def loss(self, run: Run) -> Tensor:
        """loss_BT of a run in nats, 0 where there is nothing to score; consults the labels.

        Raises:
            NoLabels: the trial has none.
        """
        if self._labels_BT is None:
            raise NoLabels("decide by the tokens and by what the backbone makes of them")
        note_labels(self.meter)
        return run_loss(run, self._labels_BT)
