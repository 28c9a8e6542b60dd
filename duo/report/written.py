"""Text as it is written: on a terminal every token in the colour of the big modules it took, elsewhere plain."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch
from rich.color import Color
from rich.style import Style
from rich.text import Text

from duo.backbone import BIG, MODULES
from duo.inference import Agreement, Written
from duo.inference.agreement import MARGIN
from duo.progress.start import speak
from duo.report.messages import plain_console

COLOURS = ((70, 110, 255), (0, 180, 190), (80, 185, 80), (225, 170, 0), (240, 70, 50))
"""From no big module to all big."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
"""What a terminal obeys, or rich breaks a line at; not all white space: some texts stand in wide or firm spaces."""
ENDS = {"length": "", "token": "; a stop token ended it", "stop": "; a stop string ended it"}


class Screen:
    """Where text goes: the standard output."""

    def __init__(self) -> None:
        self._console = plain_console()
        speak()

    def show_prompt(self, text: str) -> None:
        """What is continued, dim."""
        self._show(text, Style(dim=True))

    def show(self, one: Written) -> None:
        """A token's text."""
        self._show(one.text, colour_of(share_of_big(one)))

    def end(self) -> None:
        """Ends the last line; on a terminal that shows colours, below it what they mean."""
        self._show("\n", Style())
        if self._console.is_terminal and self._console.color_system and not self._console.no_color:
            steps = [Text(f" {share:.0%} ", colour_of(share)) for share in (0, 0.25, 0.5, 0.75, 1)]
            self._console.print(Text("big modules:", Style(dim=True)), *steps)

    def _show(self, text: str, style: Style) -> None:
        if self._console.is_terminal:  # which obeys control characters, and a model may write any
            self._console.print(Text(CONTROL.sub("\N{REPLACEMENT CHARACTER}", text), style), end="")
        else:
            sys.stdout.write(text)  # as it is: rich would expand tabs
            sys.stdout.flush()


def share_of_big(one: Written) -> float:
    """The share of the layers that ran the big module for a token."""
    return float((one.weight_LM[:, BIG] != 0).double().mean())


def colour_of(share: float) -> Style:
    """The colour of a share of big modules, between 0 and 1.

    >>> colour_of(0).color.triplet, colour_of(0.125).color.triplet
    (ColorTriplet(red=70, green=110, blue=255), ColorTriplet(red=35, green=145, blue=222))
    """
    place = share * (len(COLOURS) - 1)
    below = min(int(place), len(COLOURS) - 2)
    mixed = (low + (high - low) * (place - below) for low, high in zip(*COLOURS[below : below + 2], strict=True))
    return Style(color=Color.from_rgb(*(round(part) for part in mixed)))


class Totals(NamedTuple):
    """What a continuation took."""

    tokens: int
    seconds: float
    """From the prompt's first token to the last one written."""
    flops_per_token: float
    """Of the backbone, over the passes that predicted the tokens; without what deciding cost."""
    share: dict[str, float]
    """Of the layers of these passes, by module."""
    ended: str

    @classmethod
    def of(cls, written: Sequence[Written], seconds: float) -> Totals:
        """Of all tokens of one prompt."""
        used_M = torch.stack([one.weight_LM != 0 for one in written]).double().mean(dim=(0, 1))
        return cls(
            len(written),
            seconds,
            sum(one.flops for one in written) / len(written),
            dict(zip(MODULES, used_M.tolist(), strict=True)),
            written[-1].ended or "length",
        )

    def __str__(self) -> str:
        """One line.

        >>> print(Totals(32, 0.5, 1_234_567.0, {"small": 0.5, "big": 0.5}, "token"))
        32 tokens, 64.0 tokens a second, 1.235 MFLOPs a token, small 50.0 %, big 50.0 %; a stop token ended it
        """
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.share.items())
        return (
            f"{self.tokens} tokens, {self.tokens / self.seconds:.1f} tokens a second, "
            f"{self.flops_per_token / 1e6:.4g} MFLOPs a token, {shares}{ENDS[self.ended]}"
        )


def describe_agreement(found: Agreement) -> str:
    """How steps compared with one whole pass, in one line."""
    flips, broken = int(found.flipped_BTL.sum()), int(found.broken_BTL.sum())
    return (
        f"one whole pass: {flips} of {found.route_BTL.numel():,} decisions fall otherwise, {broken} of them with a "
        f"margin of {MARGIN:g} or more; on the same routes logits differ by {found.logits:.1e} at most"
    )
