"""The LightningModule of both trained stages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchmetrics import MeanMetric

from duo.backbone import MODULES, Backbone
from duo.data.batch import Batch
from duo.routing.meter import Meter
from duo.routing.registry import blame, describe, hint
from duo.routing.router import Router
from duo.routing.trial import Trial
from duo.routing.uniform import TRAIN
from duo.storage.processes import whole
from duo.storage.weights import check_finite
from duo.training.config import TrainingConfig
from duo.training.strategies import shard


@contextmanager
def _listening(backbone: Backbone, weights: list[Tensor], listens: bool) -> Iterator[None]:
    """Keeps the weights of the passes that are made inside."""
    if not listens:
        yield
        return
    # no longer than this: evaluation refuses backbones that hooks hang on
    handle = backbone.register_forward_hook(lambda _, __, run: weights.append(run.weight_BTLM.detach()))
    try:
        yield
    finally:
        handle.remove()


def shares_of(weight_BTLM: Tensor, layers: Sequence[int]) -> dict[str, Tensor]:
    """Mean weight of each module, over all layers and by layer, as curves.

    >>> shares = shares_of(torch.tensor([[[[0.0, 1, 0], [0, 0, 1]]]]), layers=[1, 2])
    >>> float(shares["share/big"]), float(shares["layer_02/big"])
    (0.5, 1.0)
    """
    share_LM = weight_BTLM.float().mean((0, 1))
    whole = {f"share/{module}": share for module, share in zip(MODULES, share_LM.mean(0), strict=True)}
    return whole | {
        f"layer_{layer:02}/{module}": share
        for layer, share_M in zip(layers, share_LM, strict=True)
        for module, share in zip(MODULES, share_M, strict=True)
    }


class DuoModule(L.LightningModule):
    """A backbone and a router, trained on `router.loss`: whatever requires a gradient learns.

    Stage 1 is a backbone under a `random` router; stage 3 a frozen backbone under a router that learns.

    Args:
        backbone: the model.
        router: routes its tokens.
        config: steps and learning rates.
        seed, purpose: what `Trial.uniform` depends on, besides the step and the token.
    """

    def __init__(
        self, backbone: Backbone, router: Router, config: TrainingConfig, seed: int = 0, purpose: str = TRAIN
    ) -> None:
        super().__init__()
        self.backbone, self.router = backbone, router
        self.config = config
        self._seed, self._purpose = seed, purpose
        # since the last point of the logs, over all processes; a look for NaN would wait for the device at every step
        self._mean_loss = MeanMetric(nan_strategy="disable")
        self._mean_loss.persistent(True)  # in checkpoints: curves are the same where a run was stopped
        self._losses: list[Tensor] = []  # of the batches of this step, not looked at yet
        self.strict_loading = False  # what is frozen is not in the checkpoints

    def configure_model(self) -> None:
        """Shards the weights where the strategy is one that leaves this to the module (`fsdp2`)."""
        if self.device_mesh is not None:
            shard(self, self.device_mesh["data_parallel"], self.trainer.precision)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The router's loss on one batch.

        Raises:
            ValueError: whatever the router's code raises, or a loss from which nothing is learnt.
        """
        step = self.global_step  # of the optimizer, also where batches are accumulated
        trial = Trial.of(
            batch,
            self.backbone,
            progress=min(step / self.config.steps, 1.0),
            seed=self._seed,
            purpose=self._purpose,
            step=step,
            meter=Meter(enabled=False),
        )
        # at 5 to 10 steps a second Lightning's logging costs time; a step's loss is known at its last batch
        ends = (batch_index + 1) % (self.trainer.accumulate_grad_batches if self._trainer else 1) == 0
        shown, weights = ends and (step + 1) % self.config.log_every == 0, list[Tensor]()
        with blame(self.router, "loss"), _listening(self.backbone, weights, shown):
            loss = self.router.loss(trial)
            if loss.numel() != 1:
                raise ValueError(f"the loss must be one number, not of shape {tuple(loss.shape)}")
            if not loss.requires_grad:
                raise ValueError("the loss depends on no parameter")
        self._losses.append(loss.detach().reshape(()))
        self._mean_loss.update(self._losses[-1])
        if shown:
            self.log("loss", self._mean_loss.compute(), prog_bar=True)
            self.log("learning_rate", self._learning_rate())
            self.log_dict(shares_of(weights[-1], self.backbone.routed) if weights else {})
            self._mean_loss.reset()
        return loss

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clips the norm of the gradient, and stops before what is not finite reaches the weights.

        Under trainer.precision=16-mixed the loss is scaled, and Lightning has divided the gradient by the scale; one
        that is not finite says that the scale was too large: the step is left out, and the scale halved.

        Raises:
            FloatingPointError: a loss or the gradient's norm is not finite, at whatever scale.
        """
        # Lightning calls this before every step, whether it clips or not
        learning = [parameter for parameter in self.parameters() if parameter.grad is not None]
        # infinity clips nothing and still gives the norm
        norm = whole(torch.nn.utils.clip_grad_norm_(learning, gradient_clip_val or self.config.grad_clip or math.inf))
        values, self._losses = torch.stack([*self._losses, norm]), []
        if torch.isfinite(values).all():  # the only place in a step that waits for the device
            return
        *losses, gradient = values.tolist()
        wrong = next((loss for loss in losses if not math.isfinite(loss)), None)
        if wrong is None and self._scaler is not None and self._scaler.get_scale() > 1:
            return
        said = f"the gradient's norm is {gradient}" if wrong is None else f"the loss is {wrong}"
        raise FloatingPointError(said + self._where())

    def configure_optimizers(self) -> Any:
        """AdamW on whatever requires a gradient, with warm-up and cosine."""
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in learning if p.dim() > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in learning if p.dim() <= 1], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        # a fused one would take the scale out of the gradient itself, behind the clipping
        optimizer = torch.optim.AdamW(
            groups, lr=self.config.learning_rate, betas=(0.9, 0.95), fused=self._scaler is None
        )
        # `interval`: Lightning's own choice is once an epoch
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.config.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves out what is frozen: it is saved elsewhere, once.

        Raises:
            FloatingPointError: a weight is not finite, so that the last checkpoint stays.
        """
        check_finite(self)
        frozen = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if name not in frozen
        }

    @property
    def _scaler(self) -> Any:
        """What scales the loss, where the precision needs that (16-mixed)."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _learning_rate(self) -> float:
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def _where(self) -> str:
        step = f"step {self.global_step} of {self.config.steps} (learning rate {self._learning_rate():.3g})"
        mend = f"mend {describe(type(self.router))}: {hint(self.router)}"
        return f" at {step}: lower the learning rate, or {mend}"
