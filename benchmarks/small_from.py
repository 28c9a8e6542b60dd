"""What small FFNs out of big ones are worth in a trained model: losses against minutes of the processor.

    OMP_NUM_THREADS=1 python benchmarks/small_from.py MODEL [--pinned 0] [--minutes 0.5 1 2 4] [--cache DIR]

MODEL is a folder for `backbone.pretrained` (`benchmarks/make_model.py` makes one). Each line is a stage that
`backbone.small_from=big` goes through, then of the language-model loss under random routes (`stage1.learn=small`), with
the minutes of the processor so far: losses in nats on held-out text and code, averaged, above all big's. Half of all
layers are big, pinned ones among them. `--pinned` alone pins none.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from duo import Backbone, Budget, Gate, Router, Spec, Trial, recipe, replay
from duo.backbone import BIG, SMALL
from duo.data import TextData
from duo.routing.climb import climb_to_fixed
from duo.routing.loss import run_loss
from duo.routing.meter import Meter
from duo.stages.cache import default_cache
from duo.stages.pretrained import first_weights
from duo.training.small import fit_small
from routers.random import Random

BATCHES = 2  # of each hold-out and calibration set
FIXED_TOKENS = 1024  # of each calibration set, to choose the fixed pattern on


class Bench:
    """A model, its documents, and the routes that it is measured under."""

    def __init__(self, model: str, pinned: list[int], settings: Sequence[str], cache: Path) -> None:
        self.recipe = recipe.load("pretrained", [f"backbone.pretrained={model}", f"budget.pinned={pinned}", *settings])
        torch.manual_seed(0)
        self.backbone: Backbone = first_weights(self.recipe.backbone).pin(pinned)
        self.data = TextData(self.recipe.data, self.recipe.backbone.vocabulary, cache)
        self.data.setup()
        self.half = Spec(self.recipe.backbone.layers, self.recipe.backbone.width, Budget(0.5, pinned=pinned))

    def trials(self, names: Sequence[str], kind: str) -> list[Trial]:
        """The first batches of some hold-outs or calibration sets."""
        sets = getattr(self.data, kind)
        batches = [batch for name in names for batch in islice(sets(name), BATCHES)]
        return [Trial.of(batch, self.backbone, meter=Meter(enabled=False)) for batch in batches]

    @torch.no_grad()
    def losses(self) -> dict[str, float]:
        """Mean losses on the hold-outs, under each kind of routes."""
        held = self.trials(self.data.holdouts, "holdout")
        count_M = torch.tensor(self.half.budget).long()
        (fixed_L,) = climb_to_fixed(self.trials(self.data.calibration, "calibration_set"), count_M[None], FIXED_TOKENS)
        layers = self.half.layers
        patterns = {"best fixed": fixed_L, "all small": torch.full((layers,), SMALL)}
        found = {"all big": self._mean(held, lambda trial: _follow(trial, torch.full((layers,), BIG)))}
        found["random half"] = self._mean(held, Random(self.half).route)
        for name, pattern_L in patterns.items():
            found[name] = self._mean(held, lambda trial, pattern_L=pattern_L: _follow(trial, pattern_L))  # type: ignore[misc]
        return found

    def _mean(self, held: Sequence[Trial], route: object) -> float:
        losses = [run_loss(trial.run(route(trial)), trial._labels_BT) for trial in held]  # type: ignore[operator,arg-type]
        return float(torch.cat(losses).mean())

    def fit(self, steps: int) -> None:
        """The small FFNs out of the big ones."""
        tokens_BT = next(iter(self.data.batched(8192 // self.recipe.data.tokens).train_dataloader())).tokens_BT
        trial = Trial(self.backbone, tokens_BT, meter=Meter(enabled=False))
        coin: Router = Random(self.half, p_big=0.5)
        fit_small(self.backbone, tokens_BT, coin.route(trial), steps)

    def train(self) -> Iterator[None]:
        """Steps of the language-model loss under random routes, on the small FFNs alone."""
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_("ffn.small." in name)
        small = [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]
        rate, coin = self.recipe.stage1.learning_rate, Random(self.half, p_big=0.5)
        optimizer = torch.optim.AdamW(small, rate, weight_decay=0.0, fused=True)
        for step, batch in enumerate(self.data.train_dataloader()):
            coin.loss(Trial.of(batch, self.backbone, step=step, meter=Meter(enabled=False))).backward()
            torch.nn.utils.clip_grad_norm_(small, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            yield


def _follow(trial: Trial, pattern_L: Tensor) -> Gate:
    return replay(pattern_L.expand(*trial.tokens_BT.shape, -1))


def measure(bench: Bench, marks: Sequence[float]) -> None:
    """Prints the curve."""
    print("| small FFNs | minutes | random half | best fixed half | all small |\n|---|---|---|---|---|")
    spent = 0.0

    def show(stage: str) -> None:
        found = bench.losses()
        above = " | ".join(f"{found[name] - found['all big']:+.3f}" for name in found if name != "all big")
        print(f"| {stage} | {spent:.2f} | {above} |", flush=True)

    show(f"random (all big loses {bench.losses()['all big']:.3f})")
    for stage, steps in (("neurons and regression", 0), ("and 100 steps of Adam a layer", 100)):
        start = time.process_time()
        bench.fit(steps)
        spent = (time.process_time() - start) / 60
        show(stage)
    steps_of_loss, done = bench.train(), 0
    for mark in marks:
        while spent < mark:
            start = time.process_time()
            next(steps_of_loss)
            spent, done = spent + (time.process_time() - start) / 60, done + 1
        show(f"and {done} steps of the loss")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("settings", nargs="*", help="of recipe=pretrained, as stage1.learning_rate=1e-3")
    parser.add_argument("--pinned", type=int, nargs="*", default=[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.5, 1, 2, 4])
    parser.add_argument("--cache", type=Path, default=None, help="of the prepared documents (the user's)")
    options = parser.parse_args()
    bench = Bench(options.model, options.pinned, options.settings, options.cache or default_cache())
    measure(bench, options.minutes)
