"""How often 95 % intervals hold the truth, where it is known: for new documents and new seeds.

    python benchmarks/coverage.py [RUN] [--draws 1000]

Without RUN, documents and seeds are simulated: sequences of a document correlate by a half, tails and lengths differ.
With RUN, the folder of a finished run of one router, its held-out documents stand for all that there are: hold-outs are
drawn from them, with replacement (without, hold-outs of few documents to draw from would vary too little), and it is
counted how often an interval holds the value on all. So RUN needs a hold-out of many documents:

    python -m duo.run recipe=router_budget6 data.holdout_documents=160 data.holdout_tokens=204800 output=RUN
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from duo.evaluation.format import load_struct
from duo.evaluation.intervals import (
    Estimate,
    Sequences,
    estimate_difference,
    estimate_gap_closed,
    estimate_loss,
)
from duo.evaluation.resample import jackknife_documents, jackknife_share
from duo.evaluation.result import Result

DOCUMENTS = (8, 16, 30, 48)
Estimator = Callable[..., Estimate]
LOSS = {"router": 4.0, "fixed": 4.1, "oracle": 3.0}  # nats
NOISE = 0.5  # nats, between sequences; routers differ by a fifth of it


class Seeds(NamedTuple):
    """How many seeds a router has, and how they differ, in nats."""

    number: int = 1
    alike: float = 0.0
    """On all documents alike."""
    apart: float = 0.0
    """In each document apart."""


ONE = Seeds()


class World:
    """One draw of documents, on which routers are scored."""

    def __init__(self, rng: np.random.Generator, documents: int, tails: str, lengths: str) -> None:
        spread = {"equal": 0.0, "unequal": 0.5}[lengths]
        sequences = np.ceil(8 * rng.lognormal(0, spread, documents)).astype(int)
        self.rng, self.tails = rng, tails
        self.document_B = np.repeat(np.arange(documents), sequences)
        self.tokens_B = np.full(len(self.document_B), 128)
        self.shared_B = self.vary(NOISE)

    def vary(self, scale: float) -> np.ndarray:
        """Noise around 0 for each sequence, half of whose variance is its document's."""
        part = 0.5**0.5 * scale
        return part * (self._draw(self.document_B[-1] + 1)[self.document_B] + self._draw(len(self.document_B)))

    def _draw(self, size: int) -> np.ndarray:
        """Numbers of mean 0 and variance 1; skewness 0, 1.75, 3.8 and (of Pareto's third moments) infinite."""
        if self.tails == "normal":
            return self.rng.normal(size=size)
        if self.tails == "pareto":
            return (self.rng.pareto(3, size) - 0.5) / 0.75**0.5
        width = {"skewed": 0.5, "heavy": 0.83}[self.tails]
        mean = np.exp(width**2 / 2)
        return (self.rng.lognormal(0, width, size) - mean) / (mean * (mean**2 - 1) ** 0.5)

    def router(self, loss: float, seeds: Seeds) -> Sequences:
        """A router of that loss."""
        own_B = self.shared_B + self.vary(NOISE / 5)
        drawn = [self.rng.normal(0, seeds.alike) + self.vary(seeds.apart) for _ in range(seeds.number)]
        loss_ZB = loss + own_B + np.stack(drawn)
        order = np.arange(len(self.tokens_B))
        return Sequences(loss_ZB * self.tokens_B, self.tokens_B, np.zeros((1, 1, 3)), order, self.document_B)


KINDS: dict[str, tuple[tuple[str, ...], Estimator, float]] = {
    "loss": (("router",), estimate_loss, LOSS["router"]),
    "difference": (("router", "fixed"), estimate_difference, LOSS["router"] - LOSS["fixed"]),
    "gap closed": (
        ("router", "fixed", "oracle"),
        estimate_gap_closed,
        (LOSS["fixed"] - LOSS["router"]) / (LOSS["fixed"] - LOSS["oracle"]),
    ),
}
"""By what is estimated: its routers, how, and the truth."""


def share_covered(truth: float, estimates: Iterator[Estimate]) -> float:
    """The share of intervals that hold the truth, of those that there are."""
    intervals = [found.interval for found in estimates if found.interval is not None]
    return float(np.mean([low <= truth <= high for low, high in intervals])) if intervals else float("nan")


def draw_holdouts(
    estimate: Estimator, routers: list[Sequences], documents: int, draws: int, rng: np.random.Generator
) -> Iterator[Estimate]:
    """Estimates on hold-outs of so many of the routers' documents, drawn with replacement."""
    rows = [np.flatnonzero(routers[0].document_B == document) for document in np.unique(routers[0].document_B)]
    for _ in range(draws):
        chosen = [rows[place] for place in rng.integers(len(rows), size=documents)]
        at, document_B = np.concatenate(chosen), np.repeat(np.arange(documents), [len(part) for part in chosen])
        yield estimate(
            *(router._replace(loss_ZB=router.loss_B[None, at], tokens_B=router.tokens_B[at], document_B=document_B)
              for router in routers)
        )  # fmt: skip


def over_sequences(estimate: Estimator, *routers: Sequences) -> Estimate:
    """What comes out where sequences are taken for documents."""
    return estimate(*(router._replace(document_B=np.arange(len(router.tokens_B))) for router in routers))


def print_row(label: str, shares: Iterator[float]) -> None:
    """A label and a percentage in each column."""
    print(f"{label:58}" + "".join(f"{share:9.1%}" for share in shares), flush=True)


def simulate(draws: int) -> None:
    """Prints what intervals of simulated documents and seeds cover, a column for each number of documents."""
    print(f"{'simulated; documents:':58}" + "".join(f"{documents:9}" for documents in DOCUMENTS))
    for kind in KINDS:
        for tails in ("normal", "skewed", "heavy", "pareto"):
            for lengths in ("equal", "unequal"):
                shares = simulate_row(kind, draws, tails, lengths, Seeds(3, alike=0.02, apart=0.1))
                print_row(f"{kind}, 3 seeds, {tails}, {lengths} lengths", shares)
    simulate_shares(draws)
    print_row("difference, 1 seed of a router that draws none", simulate_row("difference", draws))
    for number in (2, 3, 5):
        for how, seeds in (("everywhere alike", Seeds(number, alike=0.05)), ("by document", Seeds(number, apart=0.2))):
            print_row(f"difference, {number} seeds, varying {how}", simulate_row("difference", draws, seeds=seeds))


def simulate_row(
    kind: str, draws: int, tails: str = "skewed", lengths: str = "unequal", seeds: Seeds = ONE
) -> Iterator[float]:
    """What intervals of so many draws cover, for each number of documents."""
    names, estimate, truth = KINDS[kind]
    rng = np.random.default_rng(0)  # a row does not depend on those above

    def once(documents: int) -> Estimate:
        world = World(rng, documents, tails, lengths)
        # the others draw nothing
        return estimate(*(world.router(LOSS[name], seeds if name == "router" else ONE) for name in names))

    return (share_covered(truth, (once(documents) for _ in range(draws))) for documents in DOCUMENTS)


def simulate_shares(draws: int) -> None:
    """Prints what intervals of a share of tokens cover, which are alike in a document by so much."""
    for interval in (jackknife_documents, jackknife_share):
        for share, alike in itertools.product((0.01, 0.05, 0.2, 0.5), (0.02, 0.2)):
            rng = np.random.default_rng(0)
            found = (
                draw_share(rng, interval, share, alike, documents) for documents in DOCUMENTS for _ in range(draws)
            )
            shares = (share_covered(share, itertools.islice(found, draws)) for _ in DOCUMENTS)
            print_row(f"{interval.__name__}: share {share}, alike by {alike}", shares)


def draw_share(rng: np.random.Generator, interval: Estimator, share: float, alike: float, documents: int) -> Estimate:
    """The estimate of a share from documents of one to three sequences of 24 tokens."""
    document_B = np.repeat(np.arange(documents), rng.integers(1, 4, documents))
    share_W = rng.beta(share * (1 / alike - 1), (1 - share) * (1 / alike - 1), documents)
    hits_B = rng.binomial(24, share_W[document_B]) / 24
    found = interval([lambda keep_B: hits_B[keep_B].mean()], document_B, np.full(len(document_B), 24))
    return Estimate(found.value, found.interval or (math.nan, math.nan))  # none covers nothing


def measure(folder: Path, draws: int) -> None:
    """Prints what intervals on hold-outs of a run's documents cover; and where sequences pass for independent."""
    result = load_struct(Result, folder, "result.json")
    for holdout, score in result.scores.items():
        fixed = result.baselines["fixed_best"][holdout]
        subset = [result.subset[name][holdout].sequences for name in ("router", "fixed_best", "oracle")]
        print(f"{f'{holdout}, {score.documents} documents; drawn:':58}" + "".join(f"{many:9}" for many in DOCUMENTS))
        for label, estimate, routers in (
            (f"loss of {result.router}", estimate_loss, [score.sequences]),
            (f"{result.router} minus fixed_best", estimate_difference, [score.sequences, fixed.sequences]),
            ("gap closed, subset", estimate_gap_closed, subset),
        ):
            truth = estimate(*routers).value
            for where, how in (("", estimate), (", sequences as independent", partial(over_sequences, estimate))):
                rng = np.random.default_rng(0)
                found = (draw_holdouts(how, routers, documents, draws, rng) for documents in DOCUMENTS)
                print_row(f"{label}{where}", (share_covered(truth, estimates) for estimates in found if truth))


def main() -> None:
    """Measures on a run's documents, or on simulated ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    if options.run:
        measure(options.run, options.draws)
    else:
        simulate(options.draws)


if __name__ == "__main__":
    main()
