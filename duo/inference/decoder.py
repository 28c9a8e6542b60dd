"""Sequences that are read step by step under a router's routes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from duo.backbone import MODULES, Backbone, Run
from duo.backbone.head import Head
from duo.backbone.room import Room
from duo.evaluation.decide import asks_for_labels
from duo.routing.meter import Meter
from duo.routing.registry import blame, describe
from duo.routing.router import Router, route_and_run
from duo.routing.trial import Trial


class Decoder:
    """Reads sequences step by step, each step attending to those before it; memory for all of them is allocated once.

    At every step the router is asked anew, with all tokens so far. What is counted nowhere is what deciding costs.

    Args:
        backbone: the model; in eval mode while it reads, in its own before and after.
        router: the same; it must be deployable.
        sequence_B: ids of the sequences.
        positions: that will be read, padding included; where more come, all move into memory twice as large.
        seed: of the router's draws.
        tokenizer: digest of the tokenizer that made the tokens; empty where nobody says.

    Raises:
        ValueError: a router for another shape of backbone.
    """

    run: Run
    """What has been read so far; the logits are the last step's."""

    def __init__(
        self,
        backbone: Backbone,
        router: Router,
        sequence_B: Tensor,
        positions: int,
        *,
        seed: int = 0,
        tokenizer: str = "",
    ) -> None:
        _check_shape(backbone, router)
        self.backbone, self.router, self.sequence_B = backbone, router, sequence_B
        self._parts = [*backbone.modules(), *router.modules()]  # once: to walk the modules at every step takes longer
        self._seed, self._tokenizer = seed, tokenizer
        self.run = _empty(backbone, len(sequence_B), positions)

    @torch.no_grad()
    def read(self, tokens_BS: Tensor) -> Run:
        """One step: the prompt (padded on the left with -1), or what comes behind it.

        Raises:
            ValueError: a router that consults labels, or whatever the router raises.
        """
        start = self.run.tokens_BT.shape[1]
        trial = Trial(
            self.backbone,
            torch.cat((self.run.tokens_BT, tokens_BS), dim=1),
            None,
            self.sequence_B,
            tokenizer=self._tokenizer,
            seed=self._seed,
            meter=Meter(enabled=False),
        )
        try:
            with evaluating(self._parts), blame(self.router, "route"):
                self.run = route_and_run(self.backbone, self.router, trial, self.run, start)
        except ValueError as error:
            if not asks_for_labels(error):
                raise
            raise ValueError(
                f"{describe(type(self.router))} consults the labels of the tokens it routes, and a token that is still "
                "to be written has none: choose a deployable router (README says which are bounds)"
            ) from error
        return self.run


@contextmanager
def evaluating(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Eval mode for these modules, parts of parts included; afterwards each is in the mode that it was in."""
    training = [part for part in parts if part.training]
    # at every step: torch's own way to set an attribute takes ten times as long
    for part in training:
        object.__setattr__(part, "training", False)
    try:
        yield
    finally:
        for part in training:
            object.__setattr__(part, "training", True)


def _empty(backbone: Backbone, batch: int, positions: int) -> Run:
    """A run of no tokens, with room for so many."""
    config, weight = backbone.config, backbone.embedding.weight
    like = weight.detach()
    return Run(
        tokens_BT=torch.empty(batch, 0, dtype=torch.long, device=weight.device),
        head=Head(like.new_empty(batch, 0, config.width), backbone.head_weight.detach()),
        weight_BTLM=like.new_empty(batch, 0, len(backbone.routed), len(MODULES)),
        keys_values=[
            Room.empty(batch, config.kv_heads, positions, config.head_width, like) for _ in range(config.layers)
        ],
    )


def _check_shape(backbone: Backbone, router: Router) -> None:
    layers, width, spec = len(backbone.routed), backbone.config.width, router.spec
    if (spec.layers, spec.width) != (layers, width):
        raise ValueError(
            f"the router is made for {spec.layers} layers of width {spec.width}, the backbone has {layers} of "
            f"{width}: build it with Spec({layers}, {width}, budget)"
        )
