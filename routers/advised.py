"""What can be known: routes chosen for every token by a prediction that has not seen its label."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from duo import Backbone, Gate, Router, Spec, Trial, one_hot, replay
from duo.backbone import BIG
from duo.search import draw_patterns, expected_loss
from duo.search.patterns import counts_of
from duo.storage.shared import PublishedBackbone, open_store
from routers.candidates import Candidates

SELF = "self"  # as teacher: the backbone that is routed


class Advised(Router):
    """Routes by the loss that another prediction expects of every candidate: no labels, many passes.

    No router for use, but a rung of the ladder of information: what it gains can be known without the label, by whoever
    knows as much as its adviser does.

    Args:
        spec: layers, width and budget.
        teacher: digest of a published backbone (of the store that DUO_LEADERBOARD_STORE names, else duo's own), which
            a recipe may shorten: its prediction under all big modules advises; `self`: the backbone's own under all
            big; null: its own, averaged over candidates.
        patterns: candidates (of each count, if the budget is fractional), drawn at random, to average over.
        search: `exact` (enumeration), or for deep models `local` or `beam`, as of `oracle`; null: exact, or where there
            are too many patterns to list them, local.
        width: swaps that `local` tries a round, beginnings that `beam` keeps.
    """

    pattern_PL: Tensor

    def __init__(
        self,
        spec: Spec,
        teacher: PublishedBackbone | None = None,
        patterns: int = 32,
        search: str | None = None,
        width: int = 8,
    ) -> None:
        super().__init__(spec)
        if patterns < 1:
            raise ValueError(f"router.patterns={patterns} must be 1 or more")
        count_CM = counts_of(spec.layers, spec.budget)
        self.candidates = Candidates(count_CM, search, width)
        self.search_method = self.candidates.method
        self.teacher = teacher
        drawn = [] if teacher else [draw_patterns(count_M, patterns) for count_M in count_CM]
        self.register_buffer("pattern_PL", torch.cat([torch.empty(0, spec.layers, dtype=torch.long), *drawn]))
        if teacher and teacher != SELF:
            _open(teacher)  # a teacher that is not there is told before any work

    def calibrate(self, trials: Sequence[Trial]) -> None:
        """Finds where an approximate search starts."""
        self.candidates.calibrate(trials)

    def route(self, trial: Trial) -> Gate:
        """Follows the candidates of the lowest expected loss, each token among the routes already chosen."""
        advice_BTV = self.advise(trial)
        return replay(self.candidates.best(trial, self.spec.budget, criterion=expected_loss, targets=advice_BTV))

    def advise(self, trial: Trial) -> Tensor:
        """probability_BTV of the next token that routes are chosen by.

        Raises:
            ValueError: the teacher's tokens are others than the trial's.
        """
        if self.teacher is None:
            return trial.prediction(self.pattern_PL)
        with torch.no_grad():
            if self.teacher == SELF:
                return trial.run(_all_big).logits_BTV.softmax(-1)
            backbone = _teacher_of(self.teacher, trial)
            return backbone(trial.tokens_BT, _all_big).logits_BTV.softmax(-1)

    def predict(self, trial: Trial) -> Tensor:
        """log_probability_BTV of the next token: what the routes can know of it."""
        advice_BTV = self.advise(trial)
        return advice_BTV.clamp(min=torch.finfo(advice_BTV.dtype).tiny).log()


def _teacher_of(digest: str, trial: Trial) -> Backbone:
    """The teacher on the trial's device; raises ValueError where it cannot read the trial's tokens."""
    backbone, tokenizer = _open(digest)
    config, who = backbone.config, f"router.teacher={digest[:12]}"
    if config.vocabulary != trial.vocabulary:
        raise ValueError(f"{who} predicts {config.vocabulary} tokens, the backbone {trial.vocabulary}: choose another")
    if trial.tokenizer not in ("", tokenizer):
        raise ValueError(
            f"{who} has another tokenizer ({tokenizer[:12]}) than these tokens ({trial.tokenizer[:12]}), of the same "
            f"{config.vocabulary} tokens: choose a backbone and a teacher that share their tokens"
        )
    if trial.tokens_BT.shape[1] > config.limit[0]:
        raise ValueError(f"{who} has {config.limit[0]} positions, the sequences {trial.tokens_BT.shape[1]} tokens")
    return backbone.to(trial.tokens_BT.device)


@functools.lru_cache(maxsize=2)
def _open(digest: str) -> tuple[Backbone, str]:
    """A teacher and its tokenizer's digest; kept in memory, and so outside of every router's weights."""
    from duo.stages.published import open_published  # here: these imports take seconds, and load routers themselves

    try:
        return open_published(open_store(), digest)
    except ValueError as error:
        raise ValueError(f"router.teacher={digest!r} cannot be had: {error}") from error


def _all_big(x_BSD: Tensor, layer: int) -> Tensor:
    return one_hot(torch.full(x_BSD.shape[:2], BIG, device=x_BSD.device))
