"""The next token out of logits: greedy, or drawn after temperature, top-k, top-p, min-p and repetition penalty."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from duo.routing.uniform import SAMPLE, hash_key, uniform

FAR = 1e30  # logits are held within it: a penalty may take them to infinity, where differences are no numbers


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn; by default from the model's own distribution.

    The steps are taken in the order of the fields, repetition penalty first, as Hugging Face's `generate` does.

    Raises:
        ValueError: a value that means nothing.

    >>> Sampling(top_k=2).probabilities(torch.tensor([[2.0, 2.0, 1.0]]), torch.zeros(1, 3, dtype=torch.bool))
    tensor([[0.5000, 0.5000, 0.0000]], dtype=torch.float64)
    """

    repetition_penalty: float = 1.0
    """Divides the positive logits of tokens that are there already, prompt included, and multiplies the negative."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token always."""
    top_k: int | None = None
    """Keeps so many likeliest tokens, and whatever is as likely as the last of them (None: all)."""
    top_p: float = 1.0
    """Keeps the fewest likeliest tokens whose probabilities add up to it."""
    min_p: float = 0.0
    """Keeps tokens at least so many times as likely as the likeliest."""

    def __post_init__(self) -> None:
        _check("repetition_penalty", self.repetition_penalty, 0 < self.repetition_penalty < math.inf, "more than 0")
        _check("temperature", self.temperature, 0 <= self.temperature < math.inf, "0 (greedy) or more")
        _check("top_k", self.top_k, self.top_k is None or self.top_k >= 1, "1 or more, or null for all tokens")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "more than 0 and at most 1")
        _check("min_p", self.min_p, 0 <= self.min_p <= 1, "from 0 to 1")

    def probabilities(self, logits_BV: Tensor, seen_BV: Tensor) -> Tensor:
        """probability_BV that each token is drawn with.

        Args:
            logits_BV: the model's.
            seen_BV: the tokens that stand in the sequence already.
        """
        logits_BV = self._penalised(logits_BV.double(), seen_BV)
        if self.temperature == 0:
            return torch.zeros_like(logits_BV).scatter(1, logits_BV.argmax(1, keepdim=True), 1.0)
        # the highest becomes 0 first: no temperature, however low, takes it to infinity
        logits_BV = (logits_BV - logits_BV.amax(1, keepdim=True)) / self.temperature
        if self.top_k is not None and self.top_k < logits_BV.shape[1]:
            least_B1 = logits_BV.topk(self.top_k, dim=1).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
        probability_BV = _keep_top_p(logits_BV.softmax(1), self.top_p)
        rare_BV = probability_BV < self.min_p * probability_BV.amax(1, keepdim=True)
        probability_BV = probability_BV.masked_fill(rare_BV, 0)
        return probability_BV / probability_BV.sum(1, keepdim=True)

    def choose(self, logits_BV: Tensor, seen_BV: Tensor, uniform_B: Tensor) -> Tensor:
        """token_B, one for each sequence.

        Args:
            logits_BV: the model's.
            seen_BV: the tokens that stand in the sequence already.
            uniform_B: numbers in [0, 1) that decide, see `draw`.

        Raises:
            FloatingPointError: logits that are not numbers.
        """
        if logits_BV.isnan().any():
            raise FloatingPointError("the backbone's logits are not numbers: its weights or the router's are damaged")
        end_BV = self.probabilities(logits_BV, seen_BV).cumsum(1)
        # the first token whose end lies beyond the number: never one of probability 0, whose end is that before it
        wanted_B1 = uniform_B[:, None].double() * end_BV[:, -1:]
        return torch.searchsorted(end_BV, wanted_B1, right=True)[:, 0].clamp(max=logits_BV.shape[1] - 1)

    def _penalised(self, logits_BV: Tensor, seen_BV: Tensor) -> Tensor:
        weaker_BV = torch.where(logits_BV > 0, logits_BV / self.repetition_penalty, logits_BV * self.repetition_penalty)
        return torch.where(seen_BV, weaker_BV, logits_BV).clamp(-FAR, FAR)


def draw(seed: int, sequence_B: Tensor, position_B: Tensor) -> Tensor:
    """uniform_B in [0, 1) for the token at each sequence's position: a hash, in which no other sequence has a part.

    Of 48 random bits: a vocabulary may hold tokens rarer than 24 bits can tell.
    """
    keys = (hash_key(seed, SAMPLE, 0, number) for number in range(2))
    high_B, low_B = (uniform(key, sequence_B, position_B[:, None], 1)[:, 0, 0].double() for key in keys)
    return high_B + low_B / (1 << 24)


def _keep_top_p(probability_BV: Tensor, top_p: float) -> Tensor:
    """The same without what the likeliest tokens, which add up to top_p already, do not need."""
    if top_p == 1:
        return probability_BV
    sorted_BV, order_BV = probability_BV.sort(dim=1, descending=True, stable=True)
    needless_BV = sorted_BV.cumsum(1) - sorted_BV >= top_p
    needless_BV[:, 0] = False  # the likeliest stays, however small top_p is
    return probability_BV.masked_fill(torch.zeros_like(needless_BV).scatter(1, order_BV, needless_BV), 0)


def _check(name: str, value: float | None, good: bool, wanted: str) -> None:
    if not good:
        raise ValueError(f"{name}={value} must be {wanted}")
