"""A backbone that is trained in shards by two processes is that of one, and goes on from any checkpoint."""

import json
import os
import subprocess
import sys

import pytest
import torch
import toy_sharded
from conftest import ROOT, toy_config
from toy_sharded import FROM, KNOBS, data_of, found, module_of, train

from duo.plan.memory import training_memory
from duo.recipe import load
from duo.training.options import check_trainer
from duo.training.strategies import give_back, shards, take_weights
from routers.softmax_budget import SoftmaxBudget

long = pytest.mark.long


def test_a_wrong_strategy_is_answered_with_the_nearest_names():
    with pytest.raises(
        ValueError, match=r"unknown strategy 'trainer.strategy=fsdp3': did you mean trainer.strategy=fsdp2"
    ):
        load("tiny", ["trainer.strategy=fsdp3"])
    with pytest.raises(ValueError, match="trainer.strategy=fsdp is torch's first FSDP: use trainer.strategy=fsdp2"):
        load("tiny", ["trainer.strategy=fsdp"])
    check_trainer({"strategy": "fsdp2"})
    check_trainer({"strategy": "ddp_find_unused_parameters_true"})  # Lightning's other ones are there too


def test_what_learns_beside_a_router_is_not_sharded():
    options = {"strategy": "fsdp2"}
    assert shards(module_of(), options)
    assert not shards(module_of(), {"strategy": "ddp"})
    assert not shards(module_of(router=SoftmaxBudget(toy_sharded.SPEC)), options)  # it may search
    frozen = module_of()
    frozen.backbone.requires_grad_(False)
    assert not shards(frozen, options)


def test_weights_that_are_to_be_sharded_are_held_once_and_come_back():
    module = module_of()
    before = {name: value.clone() for name, value in module.backbone.state_dict().items()}
    addresses = {parameter.data_ptr() for parameter in module.backbone.parameters()}
    taken = take_weights(module)
    assert {parameter.data_ptr() for parameter in taken.backbone.parameters()} == addresses
    assert all(parameter.is_meta for parameter in module.backbone.parameters())
    give_back(taken, module)
    assert all(torch.equal(value, before[name]) for name, value in module.backbone.state_dict().items())
    assert all(parameter.requires_grad for parameter in module.backbone.parameters())
    assert module.backbone.head_weight is module.backbone.embedding.weight


@pytest.fixture(scope="module")
def place(files, tmp_path_factory):
    """The data of all trainings, and their folder."""
    folder = tmp_path_factory.mktemp("sharded")
    data = data_of(files, folder / "cache")
    data.setup()
    return data, folder


@pytest.fixture(scope="module")
def two(files, place):
    """Everything that two processes trained, `NAME-STRATEGY`."""
    data, folder = place
    train(data, folder / "two" / "cut-one", cut=5)
    said = run_several(2, files, folder / "cache", folder / "two")
    assert (folder / "two" / "done").exists(), said  # what is broken on purpose comes behind it
    return folder / "two"


def run_several(processes, *arguments, **environment):
    """Runs the toy trainings as several processes; returns what they said."""
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
         toy_sharded.__file__, *map(str, arguments)],
        env=os.environ | paths | environment, capture_output=True, text=True, timeout=3600, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def one(place):
    """Weights and losses of what one process trains."""
    data, folder = place
    made = {}

    def of(name):
        if name not in made:
            train(data, folder / "one" / name, **KNOBS[name])
            made[name] = found(folder / "one" / name)
        return made[name]

    return of


def distance(ours, theirs):
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@long
@pytest.mark.parametrize("name", KNOBS)
def test_two_processes_that_share_the_weights_train_what_one_does(one, two, name):
    (weights, losses), (our_weights, our_losses) = one(name), found(two / f"{name}-fsdp2")
    half = name == "half"
    assert our_losses.keys() == losses.keys() == set(range(8))
    assert list(our_losses.values()) == pytest.approx(list(losses.values()), abs=0.02 if half else 1e-5)
    # Adam makes whole steps of a gradient that is rounding alone, as of an opt model's key biases
    assert distance(our_weights, weights) < (1e-3 if half else 1e-4 if name == "opt" else 1e-5)


@long
def test_gradients_are_clipped_by_their_norm_over_all_processes(two):
    noted = [json.loads((two / "whole-fsdp2" / f"{rank}.json").read_text())["squares"] for rank in (0, 1)]
    norms = [sum(squares) ** 0.5 for squares in zip(*noted, strict=True)]
    assert norms == pytest.approx([toy_sharded.GENTLE["grad_clip"]] * 8, rel=1e-4)


@long
@pytest.mark.parametrize("strategy", ["fsdp2", "ddp"])
def test_a_process_that_gives_a_module_no_token_keeps_nobody_waiting(one, two, strategy):
    weights, losses = one("lopsided")
    assert distance(found(two / f"lopsided-{strategy}")[0], weights) < 1e-5


@long
def test_a_module_that_is_not_called_without_tokens_would_be_seen(one, two):
    broken = two / "broken"
    assert broken.exists()
    # it ends as soon as a part of another size arrives, or both wait for ever
    assert not (broken / "weights.pt").exists() or distance(found(broken)[0], one("lopsided")[0]) > 1e-4


@long
def test_every_sequence_is_seen_once(one, two, place):
    one("whole")
    noted = lambda folder, rank: json.loads((folder / f"{rank}.json").read_text())["sequences"]  # noqa: E731
    ours = [noted(two / "whole-fsdp2", rank) for rank in (0, 1)]
    assert len(ours[0]) == len(ours[1]) == 16
    assert sorted(ours[0] + ours[1]) == sorted(noted(place[1] / "one" / "whole", 0))


@long
def test_each_of_two_processes_holds_half_as_planned(two, place):
    plan = training_memory(toy_config(vocabulary=300), 32, devices=2, sharded=True)
    for rank in (0, 1):
        held = json.loads((two / "whole-fsdp2" / f"{rank}.json").read_text())
        whole = json.loads((two / "whole-ddp" / f"{rank}.json").read_text())
        for part in ("weights", "gradients", "optimizer"):
            assert held[part] == pytest.approx(getattr(plan, part), rel=0.02)
            assert whole[part] == pytest.approx(2 * held[part], rel=0.02)
    assert whole["weights"] == sum(parameter.nbytes for parameter in module_of().backbone.parameters())


@long
@pytest.mark.parametrize("name", FROM)
def test_anybodys_checkpoint_goes_on(two, one, name):
    weights, losses = found(two / f"cut-{name}")
    exact = name == "fsdp2"  # who begins, goes on
    expected = found(two / "whole-fsdp2") if exact else one("whole")
    assert distance(weights, expected[0]) <= (0 if exact else 1e-5)
    assert losses == (expected[1] if exact else pytest.approx(expected[1], abs=1e-5))


@long
@pytest.mark.parametrize("name", ["fsdp2", "ddp"])
def test_one_process_goes_on_from_a_checkpoint_of_two(two, one, place, name):
    folder = two / f"left-{name}"
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    assert all(type(value) is torch.Tensor for value in saved["state_dict"].values())
    train(place[0], folder)
    weights, losses = found(folder)
    assert distance(weights, one("whole")[0]) < 1e-5
    assert losses == pytest.approx(one("whole")[1], abs=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["whole", "checkpointed", "half"])
def test_one_or_two_gpus_train_what_a_cpu_does(one, place, files, name):
    folder = place[1] / "gpu"
    run_several(min(torch.cuda.device_count(), 2), files, place[1] / "cache", folder, name, ACCELERATOR="gpu")
    weights, losses = found(folder / f"{name}-fsdp2")
    assert list(losses.values()) == pytest.approx(list(one(name)[1].values()), abs=0.02 if name == "half" else 1e-3)
    assert distance(weights, one(name)[0]) < 1e-3
