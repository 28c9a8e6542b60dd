"""Whether a router decides step by step as it does in one whole pass."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from duo.backbone import Backbone, Gate, Run
from duo.inference.decoder import Decoder, evaluating
from duo.routing.compose import one_hot
from duo.routing.meter import Meter
from duo.routing.router import Router, route_and_run
from duo.routing.trial import Trial

MARGIN = 1e-5  # relative change of every weight that a decision with a margin bears
DRAWS = 4  # of such changes


class Agreement(NamedTuple):
    """How steps compare with one whole pass, on the routes of the whole pass: no flip alters what comes after it."""

    route_BTL: Tensor
    """Of the whole pass."""
    flipped_BTL: Tensor
    """Where a step, in front of the same routes, decides otherwise."""
    firm_BTL: Tensor
    """Which decisions of the whole pass have a margin: no small change of the backbone's weights moves them."""
    logits: float
    """Largest difference of a logit; where logits are larger than 1, as a share of the largest."""

    @property
    def broken_BTL(self) -> Tensor:
        """Flips of decisions that have a margin: rounding, which differs between passes, does not explain them."""
        return self.flipped_BTL & self.firm_BTL


@torch.no_grad()
def compare_with_whole_pass(
    backbone: Backbone,
    router: Router,
    tokens_BT: Tensor,
    prompt: int,
    sequence_B: Tensor | None = None,
    *,
    seed: int = 0,
    tokenizer: str = "",
) -> Agreement:
    """Reads sequences in one pass, then the first `prompt` positions and one token after another.

    Args:
        backbone: the model; in eval mode here, in its own before and after.
        router: the same; a deployable one.
        tokens_BT: the sequences; -1 is left padding.
        prompt: positions that are read in the first step.
        sequence_B: ids of the sequences; default: their place in the batch.
        seed: of the router's draws.
        tokenizer: digest of the tokenizer that made the tokens; empty where nobody says.

    Raises:
        ValueError: as of `Decoder`.
    """
    sequence_B = torch.arange(len(tokens_BT), device=tokens_BT.device) if sequence_B is None else sequence_B

    def whole(model: Backbone, along_BTL: Tensor | None = None) -> tuple[Run, Tensor]:
        """One pass on the router's own routes, or on these; the run, and the routes that the router wanted."""
        by = _Along(router, along_BTL)
        trial = Trial(model, tokens_BT, None, sequence_B, tokenizer=tokenizer, seed=seed, meter=Meter(enabled=False))
        with evaluating([*model.modules(), *by.modules()]):
            return route_and_run(model, by, trial), by.wanted()

    run, route_BTL = whole(backbone)
    by, logits = _Along(router, route_BTL), []
    decoder = Decoder(backbone, by, sequence_B, tokens_BT.shape[1], seed=seed, tokenizer=tokenizer)
    for tokens_BS in tokens_BT.tensor_split([*range(prompt, tokens_BT.shape[1])], dim=1):
        logits.append(decoder.read(tokens_BS).logits_BTV)
    real_BT1 = (tokens_BT >= 0)[..., None]
    flipped_BTL = (by.wanted() != route_BTL) & real_BT1
    firm_BTL = real_BT1.expand_as(route_BTL)
    for number in range(DRAWS if flipped_BTL.any() else 0):  # nobody asks for margins where nothing flipped
        firm_BTL = firm_BTL & (whole(_shaken(backbone, number), route_BTL)[1] == route_BTL)
    off_BTV = (torch.cat(logits, dim=1) - run.logits_BTV) * real_BT1
    scale = (run.logits_BTV * real_BT1).abs().max().clamp(min=1)
    return Agreement(route_BTL, flipped_BTL, firm_BTL, float(off_BTV.abs().max() / scale))


class _Along(Router):
    """Asks a router and notes its answers, but follows given routes; without any, the router's own."""

    def __init__(self, router: Router, along_BTL: Tensor | None) -> None:
        super().__init__(router.spec)
        self.router, self.along_BTL = router, along_BTL
        self._answers: list[Tensor] = []  # layer by layer, step by step

    def route(self, trial: Trial) -> Gate:
        gate, along_BTL = self.router.route(trial), self.along_BTL
        end = trial.tokens_BT.shape[1]

        def noted(x_BSD: Tensor, layer: int) -> Tensor:
            weight_BSM = gate(x_BSD, layer)
            if not isinstance(weight_BSM, Tensor) or weight_BSM.shape[:-1] != x_BSD.shape[:-1]:
                return weight_BSM  # the backbone says what is wrong with it
            self._answers.append(weight_BSM.argmax(-1))
            return weight_BSM if along_BTL is None else one_hot(along_BTL[:, end - x_BSD.shape[1] : end, layer])

        return noted

    def wanted(self) -> Tensor:
        """route_BTL of all steps so far."""
        layers = self.spec.layers
        steps = [torch.stack(self._answers[at : at + layers], -1) for at in range(0, len(self._answers), layers)]
        return torch.cat(steps, dim=1)


def _shaken(backbone: Backbone, number: int) -> Backbone:
    """A copy whose every weight is a hundred-thousandth off, up or down."""
    generator = torch.Generator().manual_seed(number)
    other = copy.deepcopy(backbone)
    for parameter in other.parameters():
        up = torch.randint(2, parameter.shape, generator=generator).to(parameter.device)
        parameter.mul_(1 + MARGIN * (2 * up - 1))
    return other
