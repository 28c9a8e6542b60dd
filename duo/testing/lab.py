"""What checks are made of: a small random backbone, random tokens, and routers that were trained for a few steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from duo.backbone import MODULES, PADDING, Backbone, BackboneConfig, Run
from duo.backbone.budget import Budget
from duo.data.batch import Batch
from duo.routing.meter import Meter
from duo.routing.router import Router, Spec, route_and_run
from duo.routing.trial import Trial
from duo.routing.uniform import CALIBRATE, TRAIN

AnyTrial = TypeVar("AnyTrial", bound=Trial)

Build = Callable[[Spec], Router]
"""Makes a router from a Spec alone: a router's class, or a function that gives it options."""

SPEC = Spec(layers=4, width=16, budget=Budget(big=2).of(4))
SKIP_SPEC = Spec(layers=6, width=16, budget=Budget(big=2, skip=2).of(6))

VOCABULARY = 64
STEPS = 5  # of training: enough that a router's first weights, often zero, begin to tell tokens apart


class Lab:
    """Builds, trains, calibrates and runs routers of one kind on one small random backbone.

    Args:
        build: makes the router.
        spec: what the router is told; the backbone has its layers and width.
        skip_scope: what a skip bypasses in the backbone.
    """

    def __init__(self, build: Build, spec: Spec = SPEC, skip_scope: str = "ffn") -> None:
        self.build, self.spec = build, spec
        self.backbone = _backbone(spec, skip_scope)
        # two domains, so that one of them is the worst
        self.calibration = [self.batch(8, 32, seed=seed, domain=f"domain {seed}") for seed in (1, 2)]
        self._built = 0

    def batch(self, sequences: int = 8, tokens: int = 12, seed: int = 0, domain: str = "holdout") -> Batch:
        """Random tokens, the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        tokens_BT = torch.randint(VOCABULARY, (sequences, tokens + 1), generator=generator)
        ids_B = torch.randperm(1000, generator=generator)[:sequences]  # in no order: a row of the batch is no id
        documents_B, bytes_B = torch.arange(sequences), torch.full((sequences,), tokens)
        return Batch(tokens_BT[:, :-1], tokens_BT[:, 1:], ids_B, documents_B, bytes_B, domain)

    def built(self, seed: int = 0) -> Router:
        """A new router; torch's generator stands elsewhere after each, so that nothing drawn from it repeats."""
        torch.manual_seed(seed)
        router = self.build(self.spec)
        assert isinstance(router, Router), f"what was built is {type(router).__name__}, not a duo.Router"
        self._built += 1
        torch.manual_seed(1000 + self._built)
        return router.eval()

    def router(self) -> Router:
        """A new router, trained for a few steps and calibrated, in eval mode."""
        router = self.trained()
        self.calibrate(router)
        return router

    def trained(self) -> Router:
        """A new router after a few steps of training, in eval mode."""
        router = self.built()
        learning = [parameter for parameter in router.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(learning, lr=0.05) if learning else None
        for step in range(STEPS if optimizer else 0):
            assert optimizer is not None
            loss = self.loss(router, self.batch(seed=100 + step), step / STEPS)  # not the tokens that checks look at
            if not (loss.requires_grad and loss.isfinite().all()):
                break  # there are checks for that
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
        return router.eval()

    def loss(self, router: Router, batch: Batch, progress: float = 0.5) -> Tensor:
        """The loss of one training step."""
        return router.train().loss(self.training_trial(Trial, batch, progress))

    def training_trial(self, kind: type[AnyTrial], batch: Batch, progress: float = 0.5) -> AnyTrial:
        """The trial of one training step."""
        return kind.of(
            batch,
            self.backbone,
            progress=progress,
            purpose=TRAIN,
            step=int(progress * STEPS),
            meter=Meter(enabled=False),
        )

    @torch.no_grad()
    def calibrate(self, router: Router) -> None:
        """Calibrates as before an evaluation."""
        trials = [
            Trial.of(batch, self.backbone, purpose=CALIBRATE, meter=Meter(enabled=False)) for batch in self.calibration
        ]
        router.eval().calibrate(trials)

    @torch.no_grad()
    def run(self, router: Router, trial: Trial) -> Run:
        """One pass over the trial's tokens under the router's gate, metered as in an evaluation."""
        return route_and_run(self.backbone, router.eval(), trial)

    def route(self, router: Router, batch: Batch) -> Tensor:
        """route_BTL that the gate really took; -1 for padding."""
        weight_BTLM = self.run(router, Trial.of(batch, self.backbone)).weight_BTLM
        return weight_BTLM.argmax(-1).masked_fill((batch.tokens_BT == PADDING)[..., None], PADDING)

    def consults_labels(self, router: Router, batch: Batch) -> bool:
        """Whether the meter says that the router read the labels of the tokens it routed."""
        trial = Trial.of(batch, self.backbone)
        self.run(router, trial)
        return trial.meter.labels_consulted


def is_bound(build: Build, spec: Spec = SPEC) -> bool:
    """Whether a router reads the labels of the tokens it routes, as the meter says; otherwise it is deployable."""
    with torch.random.fork_rng(devices=[]):
        lab = Lab(build, spec)
        router = lab.built()
        lab.calibrate(router)
        return lab.consults_labels(router, lab.batch(2, 4))


def rows(batch: Batch, index_B: Tensor) -> Batch:
    """Some sequences of a batch, in that order."""
    return batch._replace(
        **{name: part[index_B] for name, part in batch._asdict().items() if isinstance(part, Tensor)}  # type: ignore[arg-type]
    )


def count_moved(route_BTL: Tensor, other_BTL: Tensor) -> int:
    """How many sequences are routed differently."""
    return int((route_BTL != other_BTL).flatten(1).any(1).sum())


def assert_hard(weight_BSM: Tensor, where: str) -> None:
    """Raises AssertionError where weights are not exactly one-hot."""
    weight_NM = weight_BSM.reshape(-1, len(MODULES))
    wrong_N = ~(((weight_NM == 0) | (weight_NM == 1)).all(-1) & (weight_NM.sum(-1) == 1))
    shown = [round(value, 4) for value in weight_NM[wrong_N][:1].flatten().tolist()]
    assert not shown, f"{where} it weighs {MODULES} with {shown}, which is not exactly one-hot"


def _backbone(spec: Spec, skip_scope: str) -> Backbone:
    """A frozen random backbone whose weights are large enough that every part of it matters."""
    torch.manual_seed(0)
    backbone = Backbone(
        # one head unless two have an even width, as rotary positions need
        BackboneConfig(
            layers=spec.layers, width=spec.width, heads=1 if spec.width % 4 else 2, big=2 * spec.width,
            small=max(spec.width // 4, 1), vocabulary=VOCABULARY, skip_scope=skip_scope,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return backbone.requires_grad_(False).eval()
