"""Whether a router looks ahead: its routes must be the same where nothing comes behind."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from duo.backbone import Backbone
from duo.data.batch import Batch
from duo.leaderboard.sealed.scoring import Sealed, Subject
from duo.progress import at, track

PLACES = 256
"""In each hold-out and in each subset: a router that looks ahead at 2 % of them is missed once in 170 times."""
SUSPECTS = 0.02  # share of the places that rounding may explain, if it does
NOISE = 16  # roundings by which weights are moved to see whether rounding explains a place
ROUNDS = 16  # times that they are moved; a choice that is even falls out otherwise in all but one of 65,000

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """A place in a sequence behind which everything is cut off."""

    cut: int
    """Tokens that are left: 1 to T-1."""
    part: str
    row: int
    """Of the part's sequences."""


def check_looking_ahead(subject: Subject, sealed: Sealed) -> None:
    """The routes of a sealed row are those that a fresh child gives where it has no more than the tokens before.

    Places are drawn from the system's entropy, so that nobody can foretell them. What the child may have kept does not
    help it: lengths rise, so that of no sequence it has seen what comes. Prefixes lie among other sequences than wholes
    did, so that who decides by other sequences is found too.

    A pass of another length sums in another order, and two modules that are equally good may swap. No threshold can
    tell that from a single decision that looks ahead; so a place that differs has to be reached from the same prefix,
    where weights are moved by a few roundings. Whoever knows the future decides against the prefix, however it is
    rounded; whoever draws lots there, to be forgiven, differs at more than SUSPECTS of the places.

    Raises:
        ValueError: it looks ahead; hold-out, sequence and position are named.
    """
    places = [*draw_places(sealed.parts, random.SystemRandom())]
    if not places:
        return
    log.info("sealed  %s prefixes, drawn anew, in a second process", len(places))
    with at("prefixes"):
        left = dict(_differing(sealed, places, _route(subject, sealed.parts, places)))
    if len(left) <= SUSPECTS * len(places):
        log.info("sealed  %s of %s prefixes differ", len(left), len(places))
        left = _without_even_choices(subject, sealed, left)
    if left:
        raise ValueError(_describe(sealed, left, len(places)))


def draw_places(parts: dict[str, Sequence[Batch]], source: random.Random) -> Iterator[Place]:
    """PLACES of every part, or all that there are where they are fewer; shorter prefixes first."""
    found = []
    for name, batches in parts.items():
        sequences, tokens = sum(len(batch.tokens_BT) for batch in batches), batches[0].tokens_BT.shape[1]
        there = range(sequences * (tokens - 1))
        found += [
            Place(1 + at // sequences, name, at % sequences) for at in source.sample(there, min(PLACES, len(there)))
        ]
    yield from sorted(found)


def _route(
    subject: Subject, parts: dict[str, Sequence[Batch]], places: Sequence[Place], backbone: Backbone | None = None
) -> list[Tensor]:
    """route_SL of every place's prefix, from a child of its own."""
    rows, asked = {name: _rows(parts[name]) for name in {place.part for place in places}}, []
    for (cut, name), group in groupby(places, key=lambda place: place[:2]):
        tokens_NT, sequence_N = rows[name]
        index_B = torch.tensor([place.row for place in group])
        like = parts[name][0]
        asked.append(like._replace(tokens_BT=tokens_NT[index_B, :cut], sequence_B=sequence_N[index_B]))
    decided = subject.route([asked], backbone)
    if decided is None:
        raise ValueError(f"{subject.who} asks for labels of the first tokens of a sequence, and not of whole ones")
    return [route_SL for route_BSL, _ in decided[0] for route_SL in route_BSL]


def _rows(batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    inputs = [(batch.tokens_BT, batch.sequence_B) for batch in batches]
    tokens, sequences = zip(*inputs, strict=True)
    return torch.cat(tokens), torch.cat(sequences)


def _differing(sealed: Sealed, places: Sequence[Place], prefixes: Sequence[Tensor]) -> Iterator[tuple[Place, Tensor]]:
    """Places whose prefix is routed otherwise, with differs_SL: where, as far as no earlier difference explains it."""
    for place, route_SL in zip(places, prefixes, strict=True):
        differs_SL = sealed.routes[place.part][place.row, : place.cut] != route_SL
        if differs_SL.any():
            first = int(differs_SL.any(0).nonzero()[0])  # what a layer decides moves all layers above it
            differs_SL[:, first + 1 :] = False
            yield place, differs_SL


def _without_even_choices(subject: Subject, sealed: Sealed, left: dict[Place, Tensor]) -> dict[Place, Tensor]:
    """What is left of differing places where every decision that some rounding explains is taken away."""
    for turn in track(range(ROUNDS), "round of prefixes", at_most=True):
        if not left:
            break
        moved = _moved(subject.backbone.module, turn)
        for place, route_SL in zip(left, _route(subject, sealed.parts, [*left], moved), strict=True):
            left[place] &= sealed.routes[place.part][place.row, : place.cut] != route_SL
        left = {place: differs_SL for place, differs_SL in left.items() if differs_SL.any()}
    return left


def _moved(backbone: Backbone, seed: int) -> Backbone:
    """The backbone with every weight moved by a few of its roundings, up or down."""
    moved, generator = copy.deepcopy(backbone), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in moved.parameters():
            noise = torch.rand(parameter.shape, generator=generator).to(parameter) * 2 - 1
            parameter.mul_(1 + NOISE * torch.finfo(parameter.dtype).eps * noise)
    return moved


def _describe(sealed: Sealed, left: dict[Place, Tensor], places: int) -> str:
    place, differs_SL = next(iter(left.items()))
    position, layer = differs_SL.nonzero()[0].tolist()
    sequence = int(_rows(sealed.parts[place.part])[1][place.row])
    return (
        f"on {place.part.partition('/')[2]} it looks ahead, or at other sequences: in sequence {sequence} its decision "
        f"at position {position}, layer {layer} is another where it is given the first {place.cut} tokens alone; "
        f"so it is at {len(left)} of {places} places"
    )
