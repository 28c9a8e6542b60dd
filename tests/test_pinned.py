"""`budget.pinned`: layers that always run big, in passes, budgets, searches, routers and training."""

import pytest
import torch
from conftest import command, random_route, random_tokens, toy_backbone
from safetensors.torch import load_file

from duo import Budget, Spec, Trial, replay
from duo.backbone import BIG
from duo.backbone.flops import budget_flops, run_flops
from duo.data.batch import Batch
from duo.evaluation.evaluate import evaluate
from duo.inference.decoder import Decoder
from duo.recipe import load
from duo.routing import registry
from duo.routing.compose import even_patterns
from duo.routing.meter import Meter
from duo.search import all_patterns
from duo.testing.lab import is_bound

PINS = [[0], [2], [1, 4], [0, 4]]
SPEC = Spec(5, 16, Budget(3, pinned=[0]))


def whole(route_BTL, pinned):
    """The same routes over all five layers."""
    routed = [layer for layer in range(5) if layer not in pinned]
    return torch.full((*route_BTL.shape[:2], 5), BIG).index_copy(2, torch.tensor(routed), route_BTL)


def toy_trial(pinned=(), meter=None, **changes):
    tokens_BT = random_tokens(2, 9)
    backbone = toy_backbone(layers=5, **changes).pin(pinned)
    return Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:], meter=meter or Meter(enabled=False)), backbone


def toy_batch():
    tokens_BT = random_tokens(3, 9)
    return Batch(tokens_BT[:, :-1], tokens_BT[:, 1:], torch.arange(3), torch.arange(3), torch.full((3,), 9), "toy", "")


@pytest.mark.parametrize("pinned", PINS)
@pytest.mark.parametrize("scope", ["ffn", "block"])
def test_a_pass_is_that_of_routes_that_are_big_there(pinned, scope):
    route_BTL = random_route(2, 8, 5 - len(pinned), (0, 1, 2))
    trial, _ = toy_trial(pinned, skip_scope=scope)
    ours = trial.run(replay(route_BTL))
    free, backbone = toy_trial(skip_scope=scope)
    theirs = free.run(replay(whole(route_BTL, pinned)))
    assert torch.equal(ours.logits_BTV, theirs.logits_BTV)
    flops = [run_flops(backbone.config, run.weight_BTLM, trial.position_BT) for run in (ours, theirs)]
    assert torch.equal(*flops)


@pytest.mark.parametrize("pinned", PINS)
@pytest.mark.parametrize("context", ["same", "committed", "reference"])
def test_a_search_is_that_of_the_patterns_that_are_big_there(pinned, context):
    count = torch.tensor([0, 5 - len(pinned) - 1, 1])
    found, costs = [], []
    for pins in (pinned, []):
        meter = Meter()
        trial, _ = toy_trial(pins, meter=meter)
        pattern_PL = all_patterns(5 - len(pinned), (1, 2))
        pattern_PL = pattern_PL if pins else whole(pattern_PL[None], pinned)[0]
        wanted = count if pins else count + torch.tensor([0, 0, len(pinned)])
        reference_PL = pattern_PL[[0]].expand(2, 8, -1)
        about = trial.run(replay(reference_PL)) if context == "reference" else context
        found.append(trial.search(pattern_PL, [wanted], about))
        costs.append(meter.costs)
    ours, theirs = found
    assert torch.allclose(ours.loss_BTG, theirs.loss_BTG, atol=1e-5)
    assert torch.equal(whole(ours.route_BTGL[:, :, 0], pinned), theirs.route_BTGL[:, :, 0])
    assert costs[0].pass_flops == costs[1].pass_flops
    assert costs[0].layer_evaluations == costs[1].layer_evaluations


@pytest.mark.parametrize("pinned", PINS)
@pytest.mark.parametrize("method", ["local", "beam"])
def test_an_approximate_search_attains_what_it_promises(pinned, method):
    trial, _ = toy_trial(pinned)
    count = torch.tensor([0, 5 - len(pinned) - 1, 1])
    found = trial.search(even_patterns(count[None]), [count], method=method)
    replayed_BT = trial.loss(trial.run(replay(found.route_BTGL[:, :, 0])))
    assert torch.allclose(found.loss_BTG[..., 0], replayed_BT, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in registry.available() if name != "advised"])
def test_every_router_spends_what_the_pinned_layers_leave(name):
    torch.manual_seed(0)
    router = registry.build(name, SPEC)
    backbone = toy_backbone(layers=5).pin([0]).requires_grad_(False)
    batch = toy_batch()
    trial = Trial.of(batch, backbone, meter=Meter(enabled=False))
    if any(parameter.requires_grad for parameter in router.parameters()):
        router.train().loss(trial).backward()
    with torch.no_grad():
        router.eval().calibrate([trial])
    score = evaluate(backbone, router, [batch])
    assert score.within_budget
    free = budget_flops(backbone.config, Budget(3).of(5), trial.position_BT)
    assert score.budget_flops_per_token == pytest.approx(free)  # pinned layers are among the big ones
    if name != "ngram_control":
        assert score.labels_consulted == is_bound(lambda spec: registry.build(name, spec))


def test_decoding_token_by_token_gives_the_whole_pass():
    backbone, tokens_BT = toy_backbone(layers=5).pin([0]), random_tokens(2, 6)
    router = registry.build("random", SPEC)
    decoder = Decoder(backbone, router, torch.arange(2), 6)
    logits = [decoder.read(part).logits_BTV for part in tokens_BT.split([3, 1, 1, 1], dim=1)]
    trial = Trial(backbone, tokens_BT, meter=Meter(enabled=False))
    assert torch.allclose(torch.cat(logits, 1), trial.run(router.route(trial)).logits_BTV, atol=1e-5)
    with pytest.raises(ValueError, match=r"made for 4 layers of width 16, the backbone has 5"):
        Decoder(backbone.pin([]), router, torch.arange(2), 6)


def test_the_small_ffn_of_a_pinned_layer_has_no_gradient():
    trial, backbone = toy_trial([1])
    trial.loss(trial.run(replay(random_route(2, 8, 4)))).mean().backward()
    small = [block.ffn.small.down.weight.grad for block in backbone.blocks]
    assert [bool(grad.any()) for grad in small] == [True, False, True, True, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["budget.pinned=[12]"], r"budget\.pinned=12 is no layer: there are 0 to 11"),
        (["budget.pinned=[-1]"], r"budget\.pinned=-1 is no layer"),
        (["budget.pinned=[3, 3]"], "names a layer twice"),
        (["budget.pinned=[0, 1]", "backbone.layers=2", "budget.big=2"], "leaves no choice"),
        (["budget.pinned=[0, 1]", "budget.big=1"], r"budget\.big=1 is less than budget\.pinned=\[0, 1\] takes"),
        (
            ["stage3.budget={big: 4, pinned: [1]}"],
            r"stage3\.budget\.pinned=\[1\] is budget\.pinned",
        ),
    ],
)
def test_impossible_pins_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        load("router_budget6", settings)


def test_pins_are_part_of_a_runs_identity_and_nothing_else_moves():
    plain, pinned = load("router_budget6"), load("router_budget6", ["budget.pinned=[0]"])
    assert plain.identity() == load("router_budget6", ["budget.pinned=[]"]).identity()
    assert pinned.identity() == plain.identity() | {"budget.pinned": [0]}
    elsewhere = load("router_budget6", ["stage3.budget.big=4"])
    assert elsewhere.identity()["stage3.budget"] == {"big": 4, "skip": 0}
    assert load("router_budget6", ["budget.pinned=[0]", "stage3.budget.big=6"]).trained_here


def test_a_run_trains_and_scores_with_pinned_layers(small, tmp_path):
    small = [each for each in small if not each.startswith(("backbone.layers", "budget.big"))]
    settings = ["backbone.layers=3", "budget.big=2", "budget.pinned=[1]", "stage1.weight_decay=0"]
    command(*small, *settings, f"output={tmp_path}/run", f"cache={tmp_path}/cache")
    weights = load_file(tmp_path / "run" / "backbone.safetensors")
    torch.manual_seed(0)
    recipe = load("tiny", [*small[1:], *settings])
    from duo.stages.pretrained import first_weights

    first = first_weights(recipe.backbone).state_dict()
    still = [name for name in first if torch.equal(first[name], weights[name])]
    assert still == [name for name in first if name.startswith("blocks.1.ffn.small.")]
