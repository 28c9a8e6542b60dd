"""Routers that decide by more than they pay for, each with what catches it."""

import gc
import threading

import numpy as np
import pytest
import torch
from conftest import backbone_of, toy_backbone
from test_evaluate import SPEC, batches_of

from duo import Trial, replay
from duo.evaluation.evaluate import evaluate
from duo.routing import registry
from duo.routing.meter import Meter
from duo.routing.router import route_and_run
from routers.fixed import Fixed
from routers.softmax_budget import SoftmaxBudget

PLAIN = SoftmaxBudget(SPEC).eval()
SHIPPED = [name for name, points in registry.available().items() if points[0].module.startswith("routers.")]


def router_of(before=None, during=None):
    """A router that does something as it routes, and something as its gate is asked; apart from that it is sound."""

    class Evader(SoftmaxBudget):
        def route(self, trial):
            gate = super().route(trial)
            if before:
                before(trial)

            def asked(x_BSD, layer):
                if during:
                    during(trial, x_BSD, layer)
                return gate(x_BSD, layer)

            return asked

    return Evader(SPEC)


def all_big(trial):
    return replay(torch.full((*trial.tokens_BT.shape, 3), 2))


def meters():
    return [one for one in gc.get_objects() if type(one) is Meter]


# --- what is named at once


def sets_passes(trial):
    trial.meter.passes = 0


def switches_off(trial):
    trial.meter.enabled = False


def exchanges_the_meter(trial):
    trial.meter = Meter(enabled=False)


def forges_all_meters(trial):
    for meter in meters():
        object.__setattr__(meter, "_costs", meter._costs._replace(pass_flops=-1e9))


def switches_off_all_meters(trial):
    for meter in meters():
        meter.enabled = False


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (sets_passes, "trial.meter.passes cannot be set"),
        (switches_off, "trial.meter.enabled cannot be set"),
        (exchanges_the_meter, "AttributeError: .*'meter'"),
        (forges_all_meters, "somebody has set the router's costs"),
        (switches_off_all_meters, "AttributeError: .*'enabled'"),
    ],
)
def test_tampering_with_a_meter_is_an_error_that_names_the_router(tamper, said):
    with pytest.raises(ValueError, match=rf"Evader failed in route: .*{said}"):
        evaluate(toy_backbone(), router_of(before=tamper), batches_of((2,)))


def tunes(trial, x_BSD, layer):
    x_BSD.mul_(1.01)


def tunes_a_view(trial, x_BSD, layer):
    x_BSD.detach()[:, 0].add_(0.1)


@pytest.mark.parametrize("tune", [tunes, tunes_a_view])
def test_a_gate_that_tunes_the_stream_is_an_error_that_names_it(tune):
    with pytest.raises(ValueError, match=r"Evader failed in route: ValueError: the gate changed its input at layer 0"):
        evaluate(toy_backbone(), router_of(during=tune), batches_of((2,)))


def tunes_behind_the_version(trial, x_BSD, layer):
    x_BSD.data.mul_(2)


def tunes_by_numpy(trial, x_BSD, layer):
    np.multiply(x_BSD.numpy(), 2, out=x_BSD.numpy())


@pytest.mark.parametrize("tune", [tunes_behind_the_version, tunes_by_numpy])
def test_a_gate_that_tunes_its_input_in_secret_tunes_a_copy(tune):
    def run(router):
        (batch,) = batches_of((2,))
        with torch.no_grad():
            return route_and_run(toy_backbone(), router, Trial.of(batch, toy_backbone()))

    class Fixedly(Fixed):  # routes by nothing that it reads
        def route(self, trial):
            gate = super().route(trial)
            return lambda x_BSD, layer: (tune(trial, x_BSD, layer), gate(x_BSD, layer))[1]

    assert torch.equal(run(Fixedly(SPEC)).logits_BTV, run(Fixed(SPEC)).logits_BTV)


def tunes_weights(trial):
    with torch.no_grad():
        backbone_of(trial).norm.weight.mul_(1.01)


def tunes_weights_in_secret(trial):
    backbone_of(trial).norm.weight.data.mul_(1.01)


def exchanges_a_module(trial):
    backbone_of(trial).block(1).ffn.big = backbone_of(trial).block(0).ffn.big


def hooks_into_the_pass(trial):
    backbone_of(trial).block(2).register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (tunes_weights, "norm.weight"),
        (tunes_weights_in_secret, "norm.weight"),
        (exchanges_a_module, "blocks.1.ffn.big"),
        (hooks_into_the_pass, "module blocks.2"),
    ],
)
def test_changing_the_backbone_is_an_error_that_names_the_router(tamper, said):
    with pytest.raises(ValueError, match=rf"Evader failed in route: ValueError: it changed the backbone \({said}"):
        evaluate(toy_backbone(), router_of(before=tamper), batches_of((2,)))


def test_hooks_that_hang_on_the_backbone_already_are_refused():
    backbone = toy_backbone()
    backbone.block(1).ffn.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"hooks hang on the backbone \(blocks.1.ffn\): remove them"):
        evaluate(backbone, PLAIN, batches_of((2,)))


# --- what is charged


def calls_the_backbone(trial, *_):
    backbone_of(trial)(trial.tokens_BT, all_big(trial))


def calls_what_gc_finds(trial, *_):
    from duo.backbone import Backbone

    config = toy_backbone().config  # other tests' models may lie about, too
    backbone = next(one for one in gc.get_objects() if type(one) is Backbone and one.config == config)
    backbone(trial.tokens_BT, all_big(trial))


def calls_in_a_thread(trial, *_):
    thread = threading.Thread(target=calls_the_backbone, args=(trial,))
    thread.start(), thread.join()


def makes_a_trial_of_its_own(trial, *_):
    Trial(backbone_of(trial), trial.tokens_BT, meter=Meter(enabled=False)).run(all_big(trial))


def scores_another_router(trial, *_):
    own = Trial(backbone_of(trial), trial.tokens_BT, meter=Meter(enabled=False))
    route_and_run(backbone_of(trial), Fixed(SPEC), own)


PASSING = [
    calls_the_backbone, calls_what_gc_finds, calls_in_a_thread, makes_a_trial_of_its_own, scores_another_router,
]  # fmt: skip


@pytest.mark.parametrize("passing", PASSING)
def test_a_pass_is_charged_however_it_is_come_by(passing):
    plain = evaluate(toy_backbone(), PLAIN, batches_of((2, 3)))
    score = evaluate(toy_backbone(), router_of(before=passing), batches_of((2, 3)))
    assert (plain.passes, score.passes) == (0, 1)
    assert score.router_flops_per_token > 0.5 * score.flops_per_token

    def once(trial, x_BSD, layer):
        if layer == 1:
            passing(trial)

    assert evaluate(toy_backbone(), router_of(during=once), batches_of((2, 3))).passes == 1


def test_a_model_that_is_walked_layer_by_layer_is_arithmetic():
    def walk(trial):
        backbone = backbone_of(trial)
        places = backbone.places(trial.tokens_BT, 0, 0)
        x_BSD = backbone.embed(trial.tokens_BT, places)
        for layer in range(3):
            x_BSD, *_ = backbone.block(layer)(x_BSD, all_big(trial), layer, places, None)

    plain = evaluate(toy_backbone(), PLAIN, batches_of((2,)))
    score = evaluate(toy_backbone(), router_of(before=walk), batches_of((2,)))
    assert score.passes == 0
    assert score.router_flops_per_token > plain.router_flops_per_token + 0.5 * score.flops_per_token


# --- what only time shows
