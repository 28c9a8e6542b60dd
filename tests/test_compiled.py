"""Compiled parts of the backbone: unbroken graphs, few of them, and the numbers of plain ones.

All of it is long: torch's compiler takes half a minute to import, and inductor more at its first program.
"""

import shutil

import pytest
import torch
from conftest import command, random_tokens
from safetensors.torch import load_file
from test_knobs import CASES, CPU, SPEC, curve, data, module_of, plain, step_of  # noqa: F401
from test_training import cut_off, weights

from duo import Trial
from duo.backbone.block import FFN, Block, GatedTokens
from duo.backbone.dense import PLAIN, Dense
from duo.evaluation.format import load_struct
from duo.evaluation.result import Result
from duo.recipe import load
from duo.routing.meter import Meter
from duo.training import fit, options
from routers.random import Random

pytestmark = pytest.mark.long


def count_programs():
    """Graphs compiled so far, and why any was broken in two."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"], dict(counters["graph_break"])


@pytest.fixture
def fresh():
    """No compiled code of other tests, and counters at 0."""
    torch.compiler.reset()
    from torch._dynamo.utils import counters

    counters.clear()


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_compiled_step_has_three_graphs_unbroken_and_the_same_routes(fresh, case, checkpointed):
    found, expected = step_of(Dense("aot_eager", checkpointed), **case), step_of(PLAIN, **case)
    graphs, breaks = count_programs()
    # up to the gate, small, big; all once more where the first layer's input alone needs no gradient
    whole = 2 if case.get("padding") else 3
    assert graphs == (2 * whole if case.get("frozen") else whole)
    assert not breaks
    assert torch.equal(found[2].argmax(-1), expected[2].argmax(-1))
    assert float(found[0]) == pytest.approx(float(expected[0]), abs=1e-6)
    assert torch.allclose(found[1], expected[1], atol=1e-6)


def test_what_is_compiled_is_one_graph_by_dynamos_own_account():
    from torch._dynamo import explain

    backbone, tokens_BT = module_of().backbone, random_tokens(16, 64, vocabulary=512)
    places, block = backbone.places(tokens_BT, 0, 0), backbone.block(0)
    x_BSD = backbone.embed(tokens_BT, places)
    tokens = GatedTokens(lambda x_BSD, layer: print("asked"), 0, places, None)
    for told in (explain(Block.before)(block, x_BSD, tokens), explain(FFN.forward)(block.ffn.big, x_BSD.flatten(0, 1))):
        assert (told.graph_count, told.graph_break_count) == (1, 0)


def other_sizes(backend):
    """Steps, passes without gradients and decoding over many sizes of batch."""
    backbone = module_of().backbone
    backbone.dense = Dense(backend)
    router = Random(SPEC, p_big=0.5)
    for batch, length in ((4, 33), (3, 17), (1, 9), (5, 2), (2, 65)):
        tokens_BT = random_tokens(batch, length, vocabulary=512)
        trial = Trial(backbone, tokens_BT[:, :-1], tokens_BT[:, 1:], meter=Meter(enabled=False))
        router.loss(trial).backward()
        with torch.no_grad():
            run = trial.run(router.route(trial))
            gate = router.route(Trial(backbone, tokens_BT))
            last = backbone(tokens_BT[:, -1:], lambda x, layer, g=gate: g(x, layer)[:, -1:], run, length - 1)
        yield trial.loss(run).mean()
        yield last.logits_BTV
    yield torch.cat([part.grad.flatten() for part in backbone.parameters()])


def test_batches_of_many_sizes_need_few_graphs_and_give_the_same(fresh):
    for found, expected in zip(other_sizes("aot_eager"), other_sizes(None), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)
    graphs, breaks = count_programs()
    assert graphs <= 16
    assert not breaks


def test_a_compiled_run_finds_what_a_plain_one_does_and_shares_its_cache(small, tmp_path, fresh):
    options = ["trainer.compile=aot_eager", "trainer.activation_checkpointing=true"]
    command(*small, f"output={tmp_path}/plain", f"cache={tmp_path}/plain_cache")
    command(*small, *options, f"output={tmp_path}/quick", f"cache={tmp_path}/quick_cache")
    graphs, breaks = count_programs()
    assert graphs > 3
    assert not breaks
    for name in ("backbone", "router"):
        one, two = (load_file(tmp_path / folder / f"{name}.safetensors") for folder in ("plain", "quick"))
        assert one.keys() == two.keys()
        assert all(torch.allclose(one[key], two[key], atol=1e-4) for key in one)
    one, two = (load_struct(Result, tmp_path / folder, "result.json") for folder in ("plain", "quick"))
    assert one.scores["held"].loss == pytest.approx(two.scores["held"].loss, abs=1e-3)
    again = command(*small, f"output={tmp_path}/again", f"cache={tmp_path}/quick_cache")
    assert "reusing the trained backbone" in again
    assert again.count("reusing softmax_budget") == 1


def test_a_compiled_training_that_was_cut_off_goes_on_compiled_or_not(data, tmp_path, plain, monkeypatch):  # noqa: F811
    options = CPU | {"compile": "aot_eager"}
    whole = curve(data, tmp_path / "whole", compile="aot_eager")
    assert whole[1] == pytest.approx(plain[1], abs=1e-5)
    cut_off(module_of(), data, tmp_path / "cut", 4, options, monkeypatch)
    saved = torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)["state_dict"]
    assert saved.keys() == module_of().state_dict().keys()
    again = module_of()
    fit(again, data, tmp_path / "cut", "test", options)
    assert torch.equal(weights(again), whole[0])
    cut_off(module_of(), data, tmp_path / "other", 4, options, monkeypatch)
    other = module_of()
    fit(other, data, tmp_path / "other", "test", CPU)
    assert torch.allclose(weights(other), whole[0], atol=1e-4)


def test_a_backend_that_is_not_there_or_does_not_work_is_named(monkeypatch):
    with pytest.raises(ValueError, match="trainer.compile=indctor.*did you mean trainer.compile=inductor"):
        load("tiny", ["trainer.compile=indctor"])

    def broken(*_):
        raise RuntimeError("no compiler found\nat all")

    monkeypatch.setattr(options, "compiled", broken)
    backbone = module_of().backbone
    wrong = "trainer.compile=aot_eager does not work here .no compiler found.*leave it out"
    with (
        pytest.raises(ValueError, match=wrong),
        options.running_dense(backbone, {"compile": "aot_eager"}, torch.device("meta")),
    ):
        pass
    assert backbone.dense is PLAIN


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_inductor_gives_the_losses_of_plain_steps(data, tmp_path, plain, precision):  # noqa: F811
    _, losses = curve(data, tmp_path, compile=True, precision=precision)
    assert losses == pytest.approx(plain[1], abs=1e-4 if precision == "32-true" else 0.02)
