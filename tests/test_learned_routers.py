"""The routers beyond the paper: what each adds to the softmax router."""

import json
import re

import pytest
import torch
from conftest import command, random_tokens, toy_backbone
from safetensors.torch import load_file

from duo import Backbone, Budget, Spec, Trial, replay, round_to_bfloat16, top
from duo.data import Batch
from duo.recipe import load
from duo.storage.weights import load_weights, save_weights
from routers.adaptive_budget import AdaptiveBudget
from routers.any_budget import AnyBudget
from routers.fixed_best import FixedBest
from routers.ngram_budget import NgramBudget
from routers.ngram_control import NgramControl
from routers.softmax_budget import SoftmaxBudget
from routers.surrogate import MOST, SCALE, Surrogate

SPEC = Spec(3, 16, Budget(1))


def trial_of(backbone=None, batch=4, tokens=8, **about):
    tokens_BT = random_tokens(batch, tokens + 1)
    return Trial(backbone or toy_backbone(), tokens_BT[:, :-1], tokens_BT[:, 1:], **about)


@pytest.mark.parametrize(("share", "grows"), [([0, 2 / 3, 1 / 3], False), ([0, 0.4, 0.6], True), ([0, 0.9, 0.1], True)])
def test_the_controller_raises_alpha_where_the_share_is_off_and_lowers_it_where_it_is_met(share, grows):
    router = AdaptiveBudget(SPEC, alpha=2.0, rate=1.5)
    loss = router.budget_loss(torch.tensor([share] * 4))
    assert loss == pytest.approx(2 * (share[2] - 1 / 3) ** 2, abs=1e-6)
    assert router.alpha_M.tolist() == pytest.approx([0, 0, 3.0 if grows else 2 / 1.5])


def test_the_controller_can_always_turn():
    router = AdaptiveBudget(SPEC, alpha=2.0, rate=1.5)
    for share, bound in ((1 / 3, 1e-4), (0.9, 1e4)):
        for _ in range(200):
            router.budget_loss(torch.tensor([[0, 1 - share, share]]))
        assert router.alpha_M.tolist() == pytest.approx([0, 0, bound])


def test_the_controllers_state_is_saved_and_a_constant_alpha_is_not():
    assert "alpha_M" in AdaptiveBudget(SPEC).state_dict()
    assert "alpha_M" not in SoftmaxBudget(SPEC).state_dict()


def test_a_router_for_every_budget_learns_the_same_whatever_its_budget():
    weights = []
    for big in (1, 2):
        torch.manual_seed(0)
        router = AnyBudget(Spec(3, 16, Budget(big)))
        loss = router.loss(trial_of(progress=0.3, step=3))
        gradients = torch.autograd.grad(loss, [*router.parameters()])
        weights.append((*router.parameters(), *gradients))
    assert all(one.equal(other) for one, other in zip(*weights, strict=True))


def test_one_set_of_weights_keeps_every_budget_once_calibrated():
    backbone, spent = toy_backbone(), []
    torch.manual_seed(0)
    weights = AnyBudget(SPEC).state_dict()
    weights["last.1.bias"] -= 3  # heads that want small, or big, whatever they are told
    weights["last.2.bias"] += 3
    for big in (0, 1, 2, 3):
        router = AnyBudget(Spec(3, 16, Budget(big))).eval()
        router.load_state_dict(weights)
        trial = trial_of(backbone, batch=8, tokens=32)
        router.calibrate([trial])
        with torch.no_grad():
            spent.append(float(trial.run(router.route(trial)).weight_BTLM[..., 2].sum(-1).mean()))
    assert spent == pytest.approx([0, 1, 2, 3], abs=0.03)
    assert (spent[0], spent[3]) == (0, 3)  # modules whose budget is 0 are never used


def test_a_router_may_be_trained_at_one_budget_and_used_at_another(small, tmp_path):
    run = [*small, f"cache={tmp_path}/cache", "router.name=any_budget", "router.hidden=4"]
    there = command(*run, f"output={tmp_path}/there")
    here = command(*run, f"output={tmp_path}/here", "budget.big=2", "stage3.budget.big=1", "stage3.budget.skip=0")
    assert "stage 3  training" in there
    ours, theirs = (load_file(tmp_path / name / "router.safetensors") for name in ("here", "there"))
    learnt = [name for name in ours if name != "offset_M"]
    assert all(ours[name].equal(theirs[name]) for name in learnt)
    assert len(re.findall("stage 3  training", here)) <= 1
    assert json.loads((tmp_path / "here" / "result.json").read_text())["scores"]["held"]["share"]["big"] == 1


def test_look_ups_know_the_last_tokens_and_their_order():
    router = NgramBudget(SPEC, tokens=2, together=3, buckets=1 << 20)
    row_BTN = router.table._rows(torch.tensor([[5, 6, 7], [9, 6, 7], [6, 5, 7], [5, 6, 8]]))
    assert row_BTN.shape == (4, 3, 4)  # 2 tokens, a pair, a triple
    last_BN = row_BTN[:, -1]
    assert (last_BN[0] == last_BN[1]).tolist() == [True, True, True, False]  # another token two places before
    assert (last_BN[0] == last_BN[2]).tolist() == [True, False, False, False]
    assert (last_BN[0] == last_BN[3]).tolist() == [False, True, False, False]
    assert len(row_BTN.unique()) > 20


def test_an_empty_table_leaves_the_softmax_routers_logits():
    router, trial = NgramBudget(SPEC), trial_of()
    x_BTD = torch.randn(4, 8, 16)
    torch.nn.init.normal_(router.heads[1][-1].weight)
    assert router.logits_of(trial)(x_BTD, 1).equal(router.logits(x_BTD, 1))
    torch.nn.init.normal_(router.table.weight)
    whole = router.logits_of(trial)(x_BTD, 1)
    assert whole[..., 1:].ne(router.logits(x_BTD, 1)[..., 1:]).any()
    assert router.logits_of(trial)(x_BTD[:, -2:], 1).allclose(whole[:, -2:], atol=1e-6)


def test_a_table_answers_the_same_once_it_keeps_half_the_bits(tmp_path):
    """Also where the weights are loaded into a table of 32 bits, as every reuse of a router does."""
    router, trial, fresh = NgramBudget(SPEC, buckets=512), trial_of(), NgramBudget(SPEC, buckets=512).eval()
    torch.nn.init.normal_(router.table.weight)
    exact = router.table.found(trial.tokens_BT)
    router.eval().calibrate([trial])
    kept = router.table.found(trial.tokens_BT)
    assert 0 < (kept - exact).abs().max() < 0.1
    save_weights(router, tmp_path / "router.safetensors")
    saved = load_file(tmp_path / "router.safetensors")
    assert all(value.dtype == torch.bfloat16 for name, value in saved.items() if name != "offset_M")
    load_weights(fresh, tmp_path / "router.safetensors")
    assert fresh.table.weight.dtype == router.table.weight.dtype == torch.float32
    assert fresh.table.found(trial.tokens_BT).equal(kept)
    x_BTD = torch.randn(4, 8, 16)
    assert fresh.route(trial)(x_BTD, 1).equal(router.route(trial)(x_BTD, 1))


@pytest.mark.parametrize("kind", [NgramBudget, Surrogate, NgramControl])
@pytest.mark.parametrize("big", [4, 6, 8])
def test_a_tables_default_takes_a_tenth_of_the_reference_backbone_and_an_entry_under_a_megabyte(kind, big, tmp_path):
    config = load("reference", [f"budget.big={big}"])
    with torch.device("meta"):
        whole = sum(Backbone(config.backbone).parameter_counts().values())
    router = kind(config.spec)
    assert whole == 3_558_528
    assert sum(parameter.numel() for parameter in router.parameters()) <= whole / 10
    round_to_bfloat16(router)
    save_weights(router, tmp_path / "router.safetensors")
    assert (tmp_path / "router.safetensors").stat().st_size < 800_000  # its numbers and its recipe take the rest


def test_the_control_has_the_routers_table_a_little_more_besides_and_routes_like_the_best_fixed_pattern():
    spec = load("ngram_budget6").spec
    count = lambda router: sum(parameter.numel() for parameter in router.parameters())  # noqa: E731
    assert count(NgramControl(spec).table) == count(NgramBudget(spec).table)
    assert 1 <= count(NgramControl(spec)) / count(NgramBudget(spec)) < 1.2  # so that no lead over it is one of size
    control, fixed, trial = NgramControl(SPEC).eval(), FixedBest(SPEC).eval(), trial_of()
    for router in (control, fixed):
        router.calibrate([trial])
    with torch.no_grad():
        run = trial.run(fixed.route(trial))
        assert trial.run(control.route(trial)).weight_BTLM.equal(run.weight_BTLM)
        assert control.predict(trial).allclose(
            run.logits_BTV.log_softmax(-1), atol=1e-6
        )  # an empty table knows nothing


def test_the_control_learns_what_the_last_tokens_tell_of_the_next():
    """Labels that follow from the token before: a table of them is worth nearly all there is to know."""
    torch.manual_seed(0)
    backbone, control = toy_backbone(), NgramControl(SPEC, buckets=512, vocabulary=64).train()
    tokens_BT = random_tokens(16, 32)
    labels_BT = (tokens_BT * 7 + 3) % 64
    trial = Trial(backbone, tokens_BT, labels_BT)
    first, optimizer = control.loss(trial).item(), torch.optim.Adam(control.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        control.loss(trial).backward()
        optimizer.step()
    control.eval().calibrate([trial])
    with torch.no_grad():
        log_probability_BTV = control.predict(Trial(backbone, tokens_BT))
    loss = -log_probability_BTV.gather(2, labels_BT[..., None]).mean()
    assert loss < 0.1 * first


@pytest.mark.parametrize("budget", [Budget(1), Budget(1, 1)])
def test_the_surrogate_learns_the_change_of_one_tokens_loss_with_the_module_of_one_layer(budget):
    router, backbone = Surrogate(Spec(3, 16, budget), flips=1), toy_backbone()
    trial = trial_of(backbone, batch=2, tokens=5)
    route_BTL = top(trial.uniform(), trial.counts(budget))
    layer_BT1, other_BT1 = router._tried(trial, route_BTL, 1)
    assert (other_BT1 != route_BTL.gather(2, layer_BT1)).all()
    assert set(other_BT1.flatten().tolist()) <= set(router.allowed)
    gains = []
    with torch.no_grad():
        before_BT = trial.loss(trial.run(replay(route_BTL)))
        for place in range(10):
            row, at = divmod(place, 5)
            changed = route_BTL.clone()
            changed[row, at, layer_BT1[row, at, 0]] = other_BT1[row, at, 0]
            gains.append(float((before_BT - trial.loss(trial.run(replay(changed))))[row, at]))
    wanted = torch.tensor(gains).clamp(-MOST, MOST)
    assert float(router.loss(trial).detach()) == pytest.approx(float(((SCALE * wanted) ** 2).mean()), rel=1e-4)


def test_a_batch_type_serves_training():
    tokens_BT = random_tokens(2, 5)
    batch = Batch(tokens_BT[:, :-1], tokens_BT[:, 1:], torch.arange(2), torch.arange(2), torch.zeros(2), "train")
    for kind in (AdaptiveBudget, AnyBudget, NgramBudget, Surrogate):
        assert kind(SPEC).loss(Trial.of(batch, toy_backbone())).isfinite()


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (AdaptiveBudget, {"rate": 1.0}, "router.rate=1.0"),
        (AnyBudget, {"hidden": 0}, "router.hidden=0"),
        (NgramBudget, {"buckets": 0}, "router.buckets=0"),
        (NgramControl, {"together": 0}, "router.together=0"),
        (Surrogate, {"flips": 0}, "router.flips=0"),
    ],
)
def test_impossible_options_are_named(kind, options, said):
    with pytest.raises(ValueError, match=said):
        kind(SPEC, **options)


def test_a_matrix_of_too_few_tokens_is_named():
    with pytest.raises(ValueError, match="router.vocabulary=32 is less than the backbone's vocabulary of 64"):
        NgramControl(SPEC, vocabulary=32).loss(trial_of())


def test_a_router_of_two_modules_refuses_skips():
    with pytest.raises(ValueError, match="any_budget chooses between small and big"):
        AnyBudget(Spec(3, 16, Budget(1, 1)))
