"""Checks of how a router learns, is kept, and treats what is not its own."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from duo.backbone import MODULES, SKIP, Gate, Run
from duo.evaluation.untouched import check_shared, shared_settings
from duo.routing.router import Router
from duo.routing.trial import Trial
from duo.storage.weights import load_weights, save_weights
from duo.testing.checks import check
from duo.testing.lab import Lab, assert_hard, count_moved


@check
def the_loss_is_a_finite_number(lab: Lab) -> None:
    """At the beginning and at the end of training, the loss is one finite number."""
    for router in (lab.built(), lab.trained()):
        for progress in (0.0, 1.0):
            loss = lab.loss(router, lab.batch(), progress)
            assert loss.numel() == 1, f"the loss has shape {tuple(loss.shape)}, where a scalar is expected"
            assert loss.isfinite().all(), f"the loss is {loss.item()} when {progress:.0%} of the steps are done"


@check
def the_loss_reaches_every_parameter(lab: Lab) -> None:
    """The loss has a finite gradient for every parameter that requires one, and not 0 for all of them."""
    router = lab.trained()
    learning = {name: parameter for name, parameter in router.named_parameters() if parameter.requires_grad}
    if not learning:
        return
    loss = lab.loss(router, lab.batch())
    assert loss.requires_grad, f"the loss depends on none of the parameters ({', '.join(learning)})"
    gradients = torch.autograd.grad(loss.mean(), list(learning.values()), allow_unused=True)
    found = dict(zip(learning, gradients, strict=True))
    missed = [name for name, gradient in found.items() if gradient is None]
    assert not missed, f"the loss does not depend on {', '.join(missed)}: several processes would wait for its gradient"
    infinite = [name for name, gradient in found.items() if not gradient.isfinite().all()]
    assert not infinite, f"the gradient of {', '.join(infinite)} is not finite"
    assert any(gradient.any() for gradient in gradients), "the gradient of every parameter is 0: nothing is learnt"


@check
def every_allowed_module_learns(lab: Lab) -> None:
    """Where a gate learns by its weights, every allowed module's get a gradient and hand it on to a parameter."""
    router, trial = lab.trained(), lab.training_trial(Noting, lab.batch())
    trial.weights = []
    loss = router.train().loss(trial)
    allowed = [module for module, count in enumerate(lab.spec.budget) if count]
    if not trial.weights or len(allowed) < 2:  # it learns otherwise, or has nothing to learn
        return
    learning = [parameter for parameter in router.parameters() if parameter.requires_grad]
    told = torch.autograd.grad(loss.mean(), trial.weights, retain_graph=True, materialize_grads=True)
    for module in allowed:
        # in scope ffn a skip adds nothing to the stream: it learns from what the others would add
        silent = module == SKIP and lab.backbone.config.skip_scope == "ffn"
        assert silent or _told_where_not_chosen(told, trial.weights, module), (
            f"where another module is chosen, the weight of {MODULES[module]} gets no gradient from the loss: "
            "let the loss depend on the run's logits (trial.loss)"
        )
        sums = [weight_BSM[..., module].sum() for weight_BSM in trial.weights]
        heard = torch.autograd.grad(sums, learning, retain_graph=True, allow_unused=True)
        assert any(gradient is not None and gradient.any() for gradient in heard), (
            f"the weight of {MODULES[module]} moves with no parameter: detach none, and mask only what has no budget"
        )


def _told_where_not_chosen(told: Sequence[Tensor], weights: Sequence[Tensor], module: int) -> bool:
    """Whether the loss tells a module's weight anything at the tokens that chose another."""
    pairs = zip(told, weights, strict=True)
    return any(gradient_BSM[..., module][weight_BSM.argmax(-1) != module].any() for gradient_BSM, weight_BSM in pairs)


class Noting(Trial):
    """A trial that notes the weights, asked for in its passes, that are to get a gradient."""

    weights: list[Tensor]

    def run(self, gate: Gate, context: Run | None = None) -> Run:
        """The same pass."""

        def noted(x_BSD: Tensor, layer: int) -> Tensor:
            weight_BSM = gate(x_BSD, layer)
            self.weights += [weight_BSM] if weight_BSM.requires_grad else []
            return weight_BSM

        return super().run(noted, context)


@check
def saved_weights_bring_back_the_routes(lab: Lab) -> None:
    """A new router that loads the saved parameters and buffers gives the same routes."""
    router, fresh, batch = lab.router(), lab.built(seed=1), lab.batch()
    with TemporaryDirectory() as folder:
        save_weights(router, Path(folder) / "router.safetensors")
        load_weights(fresh, Path(folder) / "router.safetensors")
    changed = count_moved(lab.route(router, batch), lab.route(fresh, batch))
    assert not changed, f"{changed} sequences are routed differently after loading: keep what was found in buffers"


@check
def one_token_is_enough(lab: Lab) -> None:
    """One sequence of one token, with which most modules get no token, can be routed and learnt from."""
    router, batch = lab.router(), lab.batch(1, 1)
    lab.route(router, batch)
    assert lab.loss(router, batch).isfinite().all(), "the loss of a single token is not finite"


@check
def it_runs_in_bf16(lab: Lab) -> None:
    """It learns, calibrates and routes on a backbone in bfloat16, and also in bfloat16 itself."""
    lab.backbone.bfloat16()
    router, batch = lab.router(), lab.batch()
    for module in (router, copy.deepcopy(router).bfloat16()):
        assert lab.loss(module, batch).isfinite().all(), "in bfloat16 the loss is not finite"
        assert_hard(lab.run(module, Trial.of(batch, lab.backbone)).weight_BTLM, "in bfloat16")


@check
def the_backbone_stays_as_it_is(lab: Lab) -> None:
    """Nothing that a router does changes the backbone's weights, not by one bit, or settings of torch's own."""
    before, shared = copy.deepcopy(lab.backbone.state_dict()), shared_settings()
    for name, use in _uses(lab, lab.built()):
        use()
        try:
            check_shared(shared)
        except ValueError as error:
            raise AssertionError(f"{name}: {error}") from error
        changed = [key for key, value in lab.backbone.state_dict().items() if not torch.equal(value, before[key])]
        assert not changed, f"{name} changes the backbone's weights ({', '.join(changed)})"


@check
def the_stream_stays_as_it_is(lab: Lab) -> None:
    """A gate writes nothing into the stream that it reads, by whatever means, in training neither."""
    router, changed = lab.router(), []
    for training in (False, True):
        trial = lab.training_trial(Trial, lab.batch()) if training else Trial.of(lab.batch(), lab.backbone)
        gate = router.train(training).route(trial)

        def watched(x_BSD: Tensor, layer: int, gate: Gate = gate) -> Tensor:
            before_BSD = x_BSD.detach().clone()
            weight_BSM = gate(x_BSD, layer)
            changed.extend([layer] if not torch.equal(x_BSD, before_BSD) else [])
            return weight_BSM

        with torch.set_grad_enabled(training):
            trial.run(watched)
        assert not changed, (
            f"the gate writes into the stream at layer {changed[0]}{' in training' * training}, which tunes the model: "
            "write into a copy (x_BSD.clone())"
        )


@check
def the_global_generator_stays_as_it_is(lab: Lab) -> None:
    """After it is built, a router neither seeds a global generator (torch's, numpy's, Python's) nor draws from it."""
    for name, use in _uses(lab, lab.built()):
        before = _generators()
        use()
        moved = [whose for whose, state in _generators().items() if state != before[whose]]
        assert not moved, (
            f"{name} seeds {' and '.join(moved)} global generator or draws from it: draw from trial.uniform instead"
        )


def _generators() -> dict[str, object]:
    """The states of global generators, by whose they are."""
    return {
        "torch's": torch.get_rng_state().tolist(),
        "numpy's": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "Python's": random.getstate(),
    }


def _uses(lab: Lab, router: Router) -> list[tuple[str, Callable[[], object]]]:
    """All that is done with a router, by name."""
    batch = lab.batch()
    return [
        ("loss", lambda: lab.loss(router, batch)),
        ("calibrate", lambda: lab.calibrate(router)),
        ("route, or its gate,", lambda: lab.route(router, batch)),
    ]
