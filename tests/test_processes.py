"""Evaluation under an oracle on several processes, which agree on who needs labels."""

import datetime
import os

import pytest
import torch
from conftest import toy_backbone
from test_evaluate import batches_of
from torch import distributed, multiprocessing

from duo import Budget, Spec
from duo.evaluation.evaluate import evaluate
from routers.fixed import Fixed
from routers.oracle import Oracle

SPEC = Spec(3, 16, Budget(1))


class Noted(Oracle):
    """The oracle, keeping the route of every sequence."""

    def __init__(self, spec):
        super().__init__(spec)
        self.routes = {}

    def route(self, trial):
        found = trial.search(torch.tensor([[2, 1, 1], [1, 2, 1], [1, 1, 2]]), [self.spec.budget])
        self.routes |= dict(zip(trial.sequence_B.tolist(), found.route_BTGL[:, :, 0], strict=True))
        return super().route(trial)


class AsksOnce(Fixed):
    """Asks for labels on the one batch of four sequences, so on one process alone."""

    def route(self, trial):
        if len(trial.tokens_BT) == 4:
            trial.loss(trial.run(super().route(trial)))
        return super().route(trial)


def scored():
    router, batches = Noted(SPEC), batches_of((3, 2, 4, 1, 2))
    once = evaluate(toy_backbone(), AsksOnce(SPEC), batches)
    assert once.labels_consulted
    assert once.tokens == 12 * 6
    return evaluate(toy_backbone(), router, batches), router.routes


def on_one_of_two(rank, address, folder):
    torch.set_num_threads(1)
    patience = datetime.timedelta(seconds=60)
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2, timeout=patience)
    torch.save(scored(), f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()
    os._exit(0)  # at the interpreter's own end torch's threads abort once in a while


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_two_processes_score_every_token_once_and_choose_the_oracles_routes_but_at_ties(tmp_path):
    address = f"file://{tmp_path}/meeting"
    multiprocessing.spawn(on_one_of_two, (address, str(tmp_path)), nprocs=2)
    alone, routes = scored()
    (first, some), (second, others) = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    assert some.keys() & others.keys() == set()
    assert some.keys() | others.keys() == routes.keys() == set(range(12))
    for score in (first, second):
        assert score.tokens == alone.tokens == 12 * 6
        assert score.sequences.sequence_B.tolist() == alone.sequences.sequence_B.tolist()
        assert score.loss == pytest.approx(alone.loss, abs=1e-5)
        assert score.sequences.loss_B == pytest.approx(alone.sequences.loss_B, abs=1e-5)
    flips = [int((route != (some | others)[name]).any(-1).sum()) for name, route in routes.items()]
    print(f"{sum(flips)} routes flipped")
    for name, count in enumerate(flips):  # where routes differ, their losses tie
        if count:
            assert first.sequences.loss_B[name] == pytest.approx(alone.sequences.loss_B[name], abs=1e-5)
    assert sum(flips) <= 2
