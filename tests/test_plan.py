"""What a recipe takes, before it runs."""

import json

import pytest
import torch
from conftest import load_shipped, random_tokens, toy_backbone

from duo import Trial
from duo.plan import balance, plan
from duo.plan.__main__ import main
from duo.plan.deciding import Used, count_calibrating, count_deciding, count_learning
from duo.plan.text import WIDTH, lines_of
from duo.plan.works import Works
from duo.recipe import load, recipes
from duo.routing.meter import Meter, meter_of
from duo.routing.router import route_and_run


def told(capsys, *arguments, check=0):
    assert main(arguments) == check
    captured = capsys.readouterr()
    return captured.out if not check else captured.err.strip()


def check_plan(name):
    devices = 64 if name.startswith("paper/") else 16  # fewer hold no batch of the paper's
    found = plan(load_shipped(name), name, "h100", devices)
    assert found.days > 0
    assert sum(found.device_hours.values()) == pytest.approx(found.days * 24 * devices)
    assert all(len(line) <= WIDTH for line in lines_of(found))
    assert json.loads(json.dumps(found.flops)) == found.flops


@pytest.mark.long
@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_is_planned(name):
    check_plan(name)


def test_the_papers_stage_1_takes_what_arithmetic_says(capsys):
    settings = ("recipe=paper/stage1", "devices=64", "device=h100", "price=2.5")
    found = json.loads(told(capsys, *settings, "--json"))
    # six FLOPs a parameter and token, of half of each FFN, of attention and head (whose logits are made twice)
    active = 943_718_400 / 2 + 58_982_400 / 2 + 314_572_800 + 81_920_000
    least = 6 * active * 71526 * 2048 * 2048
    assert least < found["flops"]["stage 1"] < 1.25 * least
    assert found["device_hours"]["stage 1"] == pytest.approx(found["flops"]["stage 1"] / (0.4 * 989e12) / 3600)
    assert found["cost"] == pytest.approx(2.5 * sum(found["device_hours"].values()))
    assert found["memory"]["stage 1"]["checkpointed"] < found["memory"]["stage 1"]["peak"] < 80e9
    shown = told(capsys, *settings)
    assert all(word in shown for word in ("weights", "gradients", "optimizer", "logits", "device-hours", "days"))
    assert max(map(len, shown.splitlines())) <= 80


def test_what_does_not_fit_is_refused_with_the_setting_that_makes_it_fit(capsys):
    recipe = ["recipe=paper/stage1", "devices=8"]
    said = told(capsys, *recipe, check=1)
    assert "stage 1 needs" in said
    knob = said.split("GB: ")[1].split(" makes it")[0]
    assert "trainer.accumulate_grad_batches=" in knob
    assert "stage 1" in told(capsys, *recipe, *knob.split())


def test_checkpointing_is_planned_with_what_it_saves_and_costs(capsys):
    found = [
        json.loads(told(capsys, "recipe=paper/stage1", "devices=64", *setting, "--json"))
        for setting in ([], ["trainer.activation_checkpointing=true"])
    ]
    plain, twice = (each["memory"]["stage 1"] for each in found)
    assert twice["peak"] == plain["checkpointed"] < plain["peak"]
    assert 1.25 < found[1]["flops"]["stage 1"] / found[0]["flops"]["stage 1"] < 4 / 3  # the head is not made again


def test_weights_that_do_not_fit_one_device_are_sharded(capsys):
    said = told(capsys, "recipe=paper/stage1", "devices=8", "device=rtx4090", check=1)
    assert "strategy=fsdp2" in said


def test_evaluation_that_does_not_fit_names_its_batch(capsys):
    said = told(capsys, "recipe=paper/stage1", "devices=64", "data.eval_batch_size=1024", check=1)
    assert "evaluation needs" in said
    assert "data.eval_batch_size=" in said.split(": ")[2]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["device=h10"], "unknown device 'h10': did you mean h100"),
        (["strategy=fsdp3"], "unknown strategy 'fsdp3': did you mean fsdp2"),
        (["price=much"], "price=much is no number above 0"),
        (["price=nan"], "price=nan is no number above 0"),
        (["efficiency=1.5"], "efficiency=1.5 must be a share"),
        (["devices=two"], "devices=two is no whole number above 0"),
        (["devices=4096"], "devices=4096 are more than the 512 sequences of a batch"),
        (["budget.big=six"], "budget.big"),
        (["budget.big=13"], "12 layers"),
    ],
)
def test_a_mistake_is_told_in_one_line(capsys, settings, said):
    printed = told(capsys, "recipe=paper/stage1", *settings, check=1)
    assert said in printed
    assert len(printed.splitlines()) == 1


def test_without_a_recipe_it_says_what_to_type(capsys):
    assert main([]) == 2
    assert "python -m duo.plan recipe=NAME" in capsys.readouterr().err


def spent(recipe, backbone, tokens_BT):
    """FLOPs and layer evaluations of the recipe's router on a real trial, as its meter has them."""
    meter = Meter()
    trial = Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:], meter=meter)
    with torch.no_grad():
        route_and_run(backbone, recipe.new_router().eval(), trial)
    return meter_of(trial.meter).costs


@pytest.mark.parametrize("options", [["router.context=same"], ["router.context=committed"]])
@pytest.mark.parametrize("scope", ["ffn", "block"])
def test_a_search_is_planned_as_its_meter_counts_it(options, scope):
    shape = {"layers": 5, "width": 24, "heads": 2, "big": 40, "small": 12, "vocabulary": 70, "skip_scope": scope}
    settings = [f"backbone.{name}={value}" for name, value in shape.items()]
    recipe = load("oracle_budget6", [*settings, "budget.big=2", "budget.skip=1", *options])
    tokens_BT = random_tokens(2, 7)
    planned = count_deciding(recipe).deciding.flops(recipe.backbone, 6) * 12
    found = spent(recipe, toy_backbone(**shape), tokens_BT)
    assert planned == pytest.approx(found.pass_flops, rel=1e-9 if scope == "ffn" else 1e-3)


def test_a_router_that_asks_nobody_decides_for_nothing():
    recipe = load("tiny", ["router.name=random"])
    assert count_deciding(recipe).deciding == count_calibrating(recipe) == Used()


def test_a_soft_mixture_trains_both_modules():
    recipe = load("tiny")
    used = count_learning(recipe)
    assert (used.attended, used.small, used.big, used.leaves) == pytest.approx((4, 4, 4, 1))


def test_what_rows_share_is_planned_once():
    works = Works(load("paper/routers", ["compare.seeds=3"]))
    assert len([work for work in works.done if work.kind == "stage 1"]) == 1
    trained = [work for work in works.done if work.kind == "stage 3"]
    assert [work.tokens for work in trained] == [pytest.approx(3 * 10e9, rel=0.01)] * 3
    freezing = Works(load("paper/freeze_big"))
    tokens = [work.tokens for work in freezing.done if work.kind == "stage 1"]
    assert tokens == [pytest.approx(200e9, rel=0.01), pytest.approx(100e9, rel=0.01)]


def test_a_published_backbone_is_not_trained():
    found = plan(load("reference"), "reference", "a100")
    assert found.flops["stage 1"] == found.tokens_per_second == 0
    assert "stage 1" not in found.memory


def test_a_plan_loads_neither_weights_nor_data(monkeypatch):
    import duo.data.prepare
    import duo.storage.weights

    def refuse(*arguments, **options):
        raise AssertionError("a plan has read something")

    monkeypatch.setattr(duo.data.prepare, "prepare", refuse)
    monkeypatch.setattr(duo.storage.weights, "load_weights", refuse)
    assert plan(load("paper/router"), "paper/router", "h100", 64).days > 0


def test_workers_wait_for_the_one_with_the_longest_sequences():
    even = balance([1.0] * 1024, 64)
    assert even == (16.0, 1.0)
    times = torch.rand(1024, generator=torch.Generator().manual_seed(0)).add(0.5).tolist()
    strided, queued = balance(times, 64), balance(times, 64, queue=True)
    assert sum(times) / 64 <= queued.seconds <= strided.seconds
    assert queued.efficiency > 0.95
    assert strided.efficiency == pytest.approx(sum(times) / 64 / strided.seconds)
    one_slow = balance([64.0] + [1.0] * 1023, 64)
    assert one_slow.efficiency < 0.25


def test_more_workers_than_sequences_are_refused():
    with pytest.raises(ValueError, match="devices=64 are more than the 63 sequences of the search"):
        balance([1.0] * 63, 64)
