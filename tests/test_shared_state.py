"""Routers that reach into what the model computes, through what the whole process shares or through odd tensors."""

import pytest
import torch
from conftest import backbone_of, random_tokens, toy_backbone
from test_cost_evaders import router_of
from test_evaluate import batches_of
from torch.nn.modules import module as every_module

from duo import Trial
from duo.evaluation.evaluate import evaluate
from duo.search import all_patterns


class Louder(torch.overrides.TorchFunctionMode):
    """Makes every FFN's inside larger."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        return out * 1.5 if func is torch.nn.functional.silu else out


class Lazy(torch.Tensor):
    """Works when it is looked at."""

    seen = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        Lazy.seen += 1
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def as_before():
    """Undoes what these routers do to torch."""
    yield
    while torch._C._len_torch_function_stack():
        torch.overrides._pop_mode()
    every_module._global_forward_hooks.clear()
    torch.set_default_dtype(torch.float32)
    torch.set_autocast_enabled("cpu", False)
    torch.set_float32_matmul_precision("highest")


def listens_to_all(trial):
    every_module.register_module_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    ("reach", "said"),
    [
        (lambda trial: Louder().__enter__(), "torch's function modes"),
        (lambda trial: torch.autocast("cpu").__enter__(), "torch's autocast"),
        (lambda trial: torch.set_default_dtype(torch.float64), "torch's default dtype"),
        (lambda trial: torch.set_float32_matmul_precision("medium"), "torch's float32 precision"),
        (listens_to_all, "hooks on all modules"),
    ],
)
def test_what_all_models_share_is_no_routers_to_change(reach, said):
    with pytest.raises(ValueError, match=f"Evader failed in route: ValueError: it changed {said}, which all models"):
        evaluate(toy_backbone(), router_of(before=reach), batches_of((2,)))


def test_weights_that_change_places_in_secret_are_other_weights():
    def swaps(trial):
        weight_VD = backbone_of(trial).embedding.weight.data
        weight_VD[[0, 1]] = weight_VD[[1, 0]]

    with pytest.raises(ValueError, match=r"it changed the backbone \(embedding.weight\)"):
        evaluate(toy_backbone(), router_of(before=swaps), batches_of((2,)))


def test_a_tensor_that_works_when_it_is_looked_at_is_no_answer_of_a_gate():
    router = router_of()
    sound = router.route
    router.route = lambda trial: lambda x_BSD, layer: sound(trial)(x_BSD, layer).as_subclass(Lazy)
    with pytest.raises(ValueError, match=r"gives a Lazy, whose work nobody would count: give a plain torch.Tensor"):
        evaluate(toy_backbone(), router, batches_of((2,)))


def test_tokens_that_work_when_they_are_looked_at_are_not_those_that_are_run():
    def exchanges(trial):
        trial.tokens_BT = trial.tokens_BT.as_subclass(Lazy)
        Lazy.seen = 0

    def looks(trial, x_BSD, layer):
        assert not Lazy.seen

    evaluate(toy_backbone(), router_of(exchanges, looks), batches_of((2,)))


@pytest.mark.parametrize("given", ["pattern_PL", "targets"])
def test_a_search_takes_no_tensor_that_works_when_it_is_looked_at(given):
    trial = Trial(toy_backbone(), random_tokens(2, 4))
    parts = {"pattern_PL": all_patterns(3), "targets": torch.zeros(2, 4)}
    parts[given] = parts[given].as_subclass(Lazy)
    with pytest.raises(ValueError, match="gives a Lazy"):
        trial.search(context="same", criterion=lambda logits_NV, *_: logits_NV[:, 0], **parts)
