"""What was loaded, and a text read with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from duo.backbone import Backbone
from duo.data.windows import batch_of, cut, tokenize
from duo.evaluation.evaluate import evaluate
from duo.evaluation.score import Score
from duo.evaluation.trace import trace
from duo.routing.router import Router


class Reading(NamedTuple):
    """A text read by a backbone under a router's routes; N are its tokens but the first, which nothing predicts."""

    texts: list[str]
    """The N tokens."""
    loss_N: np.ndarray
    """Nats."""
    route_NL: np.ndarray
    """The module of each layer that the prediction of a token was made by: 0 skip, 1 small, 2 big."""
    score: Score
    """Mean loss, FLOPs and all other numbers of an evaluation; where windows overlap, of all that was read."""


class Loaded(NamedTuple):
    """What was made: ready to be evaluated, on the device that was asked for; nothing of it learns."""

    backbone: Backbone
    router: Router | None
    """None: a backbone was asked for."""
    tokenizer: Tokenizer
    length: int
    """Tokens of the sequences that they were trained on."""

    def __repr__(self) -> str:
        """What it is, on one line: weights and vocabularies are long."""
        of = self.backbone.config
        router = "no router" if self.router is None else f"router {type(self.router).__name__}"
        size = sum(parameter.numel() for parameter in self.backbone.parameters())
        return f"Loaded(backbone of {of.layers} layers, {size:,} parameters; {router}; {of.vocabulary:,} tokens)"

    def read(self, text: str, seed: int = 0) -> Reading:
        """What a text loses token by token, by which modules, and what that costs.

        A text that is longer than `length` is read in windows that overlap by half.

        Raises:
            ValueError: there is no router, the text has fewer than two tokens, or whatever the router raises.
        """
        if self.router is None:
            raise ValueError("a backbone alone chooses no routes: load a run or an entry")
        tokens = tokenize(self.tokenizer, text)
        windows = cut(tokens, self.length)
        rows = np.arange(len(windows.start_B))
        batches = [batch_of(self.tokenizer, tokens, windows, rows, self.length)]
        found, at = trace(self.backbone, self.router, batches, seed), (windows.window_N, windows.place_N)
        texts = [part.decode(errors="replace") for part in tokens.byte_N[1:]]
        score = evaluate(self.backbone, self.router, batches, seed)
        return Reading(texts, found.loss_BT[at], found.route_BTL[at], score)
