"""What a meter charges, and whom."""

import copy
import threading

import pytest
import torch
from conftest import backbone_of, pass_flops, random_route, random_tokens, toy_backbone
from test_trial import trial_of

from duo import Trial, replay
from duo.backbone.flops import run_flops
from duo.routing.meter import Meter, meter_of
from duo.search import all_patterns

PRODUCTS = 2 * 24 * 16 * 3  # of a linear gate at one layer: tokens, width, modules
WEIGHT = torch.randn(16, 3)


def linear(x_BSD, layer):
    return (x_BSD @ WEIGHT).softmax(-1)


def products(trial):
    return meter_of(trial.meter).costs.work.products


@torch.no_grad()
def test_a_routers_products_are_counted_wherever_they_happen_and_once():
    trial = trial_of()
    with meter_of(trial.meter).counting():
        torch.ones(24, 16) @ WEIGHT  # in `route` itself
        run = trial.run(linear)  # in a gate, on a pass that `route` asks for
    assert products(trial) == (3 + 1) * PRODUCTS
    assert pass_flops(trial) == float(run_flops(toy_backbone().config, run.weight_BTLM, trial.position_BT).sum())
    work = meter_of(trial.meter).costs.work
    assert trial.meter.flops == pass_flops(trial) + work.products + work.elements
    assert work.elements > 0


@torch.no_grad()
def test_a_pass_costs_the_same_whoever_asks_for_it():
    charged = []
    for ask in (lambda trial: trial.run(linear), lambda trial: backbone_of(trial)(trial.tokens_BT, linear)):
        trial = trial_of()
        with meter_of(trial.meter).counting():
            ask(trial)
        charged.append(meter_of(trial.meter).costs._replace(work=products(trial)))
    assert charged[0] == charged[1]
    assert charged[0].passes == 1


@torch.no_grad()
def test_a_pass_behind_a_context_is_charged_for_its_own_positions():
    tokens_BT, route_BTL = random_tokens(2, 8), random_route(2, 8, 3)
    tokens_BT[0, :3] = -1
    whole, parts = Trial(toy_backbone(), tokens_BT), Trial(toy_backbone(), tokens_BT)
    with meter_of(whole.meter).counting():
        toy_backbone()(tokens_BT, replay(route_BTL))
    with meter_of(parts.meter).counting():
        run = None
        for start, stop in ((0, 5), (5, 6), (6, 8)):
            run = toy_backbone()(tokens_BT[:, start:stop], replay(route_BTL[:, :stop]), run, start)
    assert pass_flops(parts) == pytest.approx(pass_flops(whole))
    assert parts.meter.layer_evaluations == whole.meter.layer_evaluations == 3 * 13
    assert parts.meter.passes == pytest.approx(1)


@torch.no_grad()
def test_parts_of_the_backbone_are_ordinary_arithmetic():
    trial = trial_of()
    with meter_of(trial.meter).counting():
        backbone_of(trial).block(0).ffn.big(torch.ones(24, 16))
    assert products(trial) == 2 * 24 * 3 * 16 * 32
    assert trial.meter.passes == 0


@torch.no_grad()
def test_what_a_gate_asks_of_its_trial_while_it_runs_is_charged_too():
    trial, plain = trial_of(), replay(random_route(3, 8, 3))

    def gate(x_BSD, layer):
        if layer == 1:
            trial.loss(trial.run(plain))
        return linear(x_BSD, layer)

    backbone_of(trial)(trial.tokens_BT, meter_of(trial.meter).counted(gate))
    inside = run_flops(toy_backbone().config, toy_backbone()(trial.tokens_BT, plain).weight_BTLM, trial.position_BT)
    assert pass_flops(trial) == float(inside.sum())
    assert products(trial) == 3 * PRODUCTS
    assert (trial.meter.passes, trial.meter.labels_consulted) == (1, True)


@torch.no_grad()
def test_a_criterion_is_charged_and_the_search_around_it_is_not_charged_twice():
    plain, heavy = trial_of(), trial_of()
    for trial, criterion in (
        (plain, lambda logits_NV: logits_NV[:, 0]),
        (heavy, lambda logits_NV: (logits_NV @ torch.ones(64, 64))[:, 0]),
    ):
        trial.search(all_patterns(3), (), "same", criterion)
    assert pass_flops(plain) == pass_flops(heavy)
    assert (products(plain), products(heavy)) == (0, 8 * 2 * 24 * 64 * 64)


@torch.no_grad()
def test_a_trial_that_a_router_makes_is_charged_to_the_router():
    trial = trial_of()
    with meter_of(trial.meter).counting():
        own = Trial(backbone_of(trial), trial.tokens_BT, trial.tokens_BT, meter=Meter(enabled=False))
        own.run(linear)
        own.search(all_patterns(3), (), "same")
    assert trial.meter.passes == pytest.approx(1 + (2 + 4 + 8) / 3)
    assert trial.meter.labels_consulted
    assert own.meter.passes == 0


@torch.no_grad()
def test_a_pass_in_a_thread_is_charged_to_whoever_started_it():
    trial = trial_of()
    meter = meter_of(trial.meter)
    with meter.charging_threads():
        thread = threading.Thread(target=lambda: backbone_of(trial)(trial.tokens_BT, linear))
        thread.start()
        backbone_of(trial)(trial.tokens_BT, replay(random_route(3, 8, 3)))  # of the evaluation itself: not charged
        thread.join()
    assert trial.meter.passes == 1
    assert products(trial) == 3 * PRODUCTS


def test_a_disabled_meter_counts_no_costs_but_still_notes_labels():
    trial = trial_of(meter=Meter(enabled=False))
    trial.loss(trial.run(replay(random_route(3, 8, 3))))
    assert (trial.meter.passes, trial.meter.flops, trial.meter.labels_consulted) == (0, 0, True)


@torch.no_grad()
def test_time_is_that_of_deciding_and_not_of_passes():
    trial = trial_of()
    meter = meter_of(trial.meter)
    backbone = toy_backbone(width=64, big=2048)
    with meter.counting():
        backbone(random_tokens(8, 64), replay(torch.full((8, 64, 3), 2)))
    passes = meter.costs.work
    assert 0 < passes.processor < 0.02
    with meter.counting():
        torch.ones(600, 600) @ torch.ones(600, 600)
    assert meter.costs.work.processor > passes.processor


@pytest.mark.parametrize("name", ["passes", "flops", "labels_consulted", "promised_loss", "enabled", "anything"])
def test_a_router_sees_its_meter_and_can_set_nothing_of_it(name):
    view = trial_of().meter
    with pytest.raises(AttributeError, match=rf"trial.meter.{name} cannot be set: .* counted, not declared"):
        setattr(view, name, 0)
    assert {part for part in dir(view) if not part.startswith("_")} == {
        "passes", "layer_evaluations", "flops", "labels_consulted", "promised_loss"
    }  # fmt: skip
    assert copy.deepcopy(view) is copy.copy(view) is view


def test_a_trial_keeps_its_meter():
    trial = trial_of()
    with pytest.raises(AttributeError):
        trial.meter = Meter()
    assert not [part for part in vars(trial).values() if isinstance(part, Meter)]


def test_a_promise_that_is_looked_at_cannot_be_changed():
    trial = trial_of()
    trial.search(all_patterns(3)[[7]], [torch.tensor([0, 0, 3])], "same")
    before_BT = trial.meter.promised_loss
    trial.meter.promised_loss.zero_()
    assert torch.equal(trial.meter.promised_loss, before_BT)


def test_numbers_written_into_a_meter_are_noticed():
    meter = Meter()
    with meter.counting():
        torch.ones(3) + 1
    meter._costs = meter._costs._replace(passes=-1.0)
    with pytest.raises(ValueError, match="somebody has set the router's costs"):
        _ = meter.costs
    with pytest.raises(AttributeError):
        meter.enabled = False


def test_a_pass_that_is_left_by_an_error_cannot_be_had_for_nothing():
    trial, seen = trial_of(), []

    def leaving(x_BSD, layer):
        seen.append(x_BSD)
        if layer == 2:
            raise KeyError("that will do")
        return linear(x_BSD, layer)

    with torch.no_grad(), meter_of(trial.meter).counting(), pytest.raises(KeyError):
        trial.run(leaving)
    assert len(seen) == 3
    with pytest.raises(ValueError, match="what a pass cost that was left by an error is not known: KeyError"):
        _ = trial.meter.passes


def test_a_mode_left_behind_while_costs_are_counted_is_told():
    from torch.utils._python_dispatch import TorchDispatchMode, _pop_mode

    class Own(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    trial, own = trial_of(), Own()
    with pytest.raises(RuntimeError, match="leave what you enter"), meter_of(trial.meter).counting():
        own.__enter__()
    own.__exit__(None, None, None)
    _pop_mode()  # the counter's
