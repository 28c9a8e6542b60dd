"""Asked to stop, a run ends with one line where nothing is lost, and the same command goes on."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import command
from test_training import QUIET, data, module_of, weights  # noqa: F401 # data is a fixture

from duo import Backbone, BackboneConfig, Budget, Router, Spec
from duo.data import TextData
from duo.routing import compose, counter, meter
from duo.storage import signals
from duo.storage.signals import SIGNALS, Stopped, stopping, waiting
from duo.training import fit
from duo.training.trainer import loss_curve
from routers.random import Random

SPEC = Spec(3, 16, Budget(1))


class StopAt(Router):
    """Sends the process a signal in the middle of a step."""

    def __init__(self, spec, step, number):
        super().__init__(spec)
        self.inner, self.step, self.number = Random(spec, p_big=0.5), step, number

    def route(self, trial):
        return self.inner.route(trial)

    def loss(self, trial):
        if round(trial.progress * 12) == self.step and self.number:
            os.kill(os.getpid(), self.number)
            self.number = 0
        return super().loss(trial)


@pytest.mark.parametrize(
    ("number", "step", "accumulate"), [(signal.SIGINT, 5, 1), (signal.SIGTERM, 6, 2), (signal.SIGUSR1, 8, 1)]
)
def test_a_training_that_was_asked_to_stop_goes_on_bit_for_bit(data, tmp_path, number, step, accumulate):  # noqa: F811
    options = QUIET | {"accumulate_grad_batches": accumulate}
    whole, cut, again = module_of(), module_of(router=StopAt(SPEC, step, number)), module_of()
    fit(whole, data, tmp_path / "whole", "test", options)
    with pytest.raises(Stopped), stopping():
        fit(cut, data, tmp_path / "cut", "test", options)
    assert torch.load(tmp_path / "cut/last.ckpt", weights_only=True)["global_step"] == step + 1
    fit(again, data, tmp_path / "cut", "test", options)
    assert torch.equal(weights(again), weights(whole))
    assert loss_curve(tmp_path / "cut") == loss_curve(tmp_path / "whole")


def test_a_signal_that_comes_where_python_ignores_exceptions_comes_again():
    class Destroyed:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    def lose():
        Destroyed()
        time.sleep(5)

    with pytest.raises(Stopped), stopping():
        lose()


@pytest.mark.parametrize("ends", ["is raised", "is taken for a mistake"])
def test_a_signal_of_which_a_library_makes_another_error_is_no_mistake_of_the_users(ends):
    def read():
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            raise ValueError("the weights cannot be read: delete the file") from None

    def work():
        with contextlib.suppress(ValueError if ends == "is taken for a mistake" else ()):
            read()

    with pytest.raises(Stopped), stopping():
        work()


def count_a_pass(backbone, moment=-1):
    """What is counted, or raised where a signal strikes at a moment; in a thread, which takes along what is left."""

    def strike(frame, event, argument):
        nonlocal moment
        if frame.f_code.co_filename not in {counter.__file__, meter.__file__}:
            return None
        moment -= event == "line"
        if moment == -1 and event == "line":
            raise Stopped(signal.SIGTERM)
        return strike

    def count(of):
        sys.settrace(None if moment < 0 else strike)
        with of.counting():
            torch.ones(3) + 1
            backbone(torch.zeros(1, 2, dtype=torch.long), compose.replay(torch.ones(1, 2, 1, dtype=torch.long)))
            torch.ones(3) + 1
        return of.costs

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(count, meter.Meter()).exception() or moment


def test_a_signal_at_any_moment_of_counting_is_what_is_heard_of():
    """Counting begins and ends in several steps, and complains where it finds itself in between."""
    backbone = Backbone(BackboneConfig(layers=1, width=8, heads=1, vocabulary=16))
    moments = 100_000 - count_a_pass(backbone, 100_000)
    assert moments > 100
    for moment in range(moments):
        assert isinstance(count_a_pass(backbone, moment), Stopped), moment


def test_a_signal_before_the_first_step_is_heard_although_lightning_takes_it(data, tmp_path, monkeypatch):  # noqa: F811
    def loader(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return train_dataloader(self)

    train_dataloader = TextData.train_dataloader
    with monkeypatch.context() as patch:
        patch.setattr(TextData, "train_dataloader", loader)
        with pytest.raises(Stopped, match="15"):
            fit(module_of(), data, tmp_path / "cut", "test", QUIET)
    fit(again := module_of(), data, tmp_path / "cut", "test", QUIET)
    fit(whole := module_of(), data, tmp_path / "whole", "test", QUIET)
    assert torch.equal(weights(again), weights(whole))


def test_a_signal_in_the_last_step_stops_behind_the_training(data, tmp_path):  # noqa: F811
    with pytest.raises(Stopped):
        fit(module_of(router=StopAt(SPEC, 11, signal.SIGTERM)), data, tmp_path, "test", QUIET)
    fit(again := module_of(), data, tmp_path, "test", QUIET)
    fit(whole := module_of(), data, tmp_path / "whole", "test", QUIET)
    assert torch.equal(weights(again), weights(whole))


def test_a_run_that_is_asked_to_stop_says_one_line_and_the_same_command_goes_on(small, tmp_path, monkeypatch):
    def evaluate(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    with monkeypatch.context() as patch:
        patch.setattr("duo.stages.score.evaluate", evaluate)
        printed = command(*small, f"output={tmp_path}/run", f"cache={tmp_path}/cache", check=130)
    assert printed.splitlines()[-1] == "stopped by SIGINT; the same command goes on"
    assert not (tmp_path / "run" / "result.json").exists()
    printed = command(*small, f"output={tmp_path}/run", f"cache={tmp_path}/cache")
    assert "reusing the trained backbone" in printed


def test_slurms_warning_asks_it_to_start_the_job_again(small, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setattr(
        "duo.report.command.subprocess.run",
        lambda arguments, **_: asked.append(arguments) or subprocess.CompletedProcess(arguments, 0, "", ""),
    )
    monkeypatch.setattr("duo.run.run", lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    assert "scontrol requeue 17: done" in command(*small, check=128 + signal.SIGUSR1)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "18")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    command(*small, check=128 + signal.SIGUSR1)
    assert asked == [["scontrol", "requeue", "17"], ["scontrol", "requeue", "18_3"]]
    monkeypatch.undo()
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("duo.run.run", lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    assert "scontrol requeue 17: failed: " in command(*small, check=128 + signal.SIGUSR1)


def test_a_second_signal_that_comes_along_with_the_first_is_not_heard():
    cleaned = []

    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        finally:  # what is cleaned up here must not be cut off
            os.kill(os.getpid(), signal.SIGINT)
            cleaned.append(True)

    with pytest.raises(Stopped, match="15"), stopping():
        work()
    assert cleaned == [True]


def test_signals_that_are_ignored_stay_so_and_handlers_come_back(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup does
    try:
        with stopping(), waiting() as asked:
            os.kill(os.getpid(), signal.SIGINT)
            assert asked.number is None
    finally:
        signal.signal(signal.SIGINT, before)
    found = [signal.getsignal(number) for number in SIGNALS]
    with stopping(), waiting():
        assert [signal.getsignal(number) for number in SIGNALS] != found
    assert [signal.getsignal(number) for number in SIGNALS] == found


def test_a_signal_long_after_the_first_ends_the_process(monkeypatch):
    ended = []
    monkeypatch.setattr(signals.os, "_exit", ended.append)
    monkeypatch.setattr(signals, "PATIENCE", -1)
    asked = signals.Asked()
    assert asked.note(signal.SIGINT)
    asked.note(signal.SIGINT)
    assert ended == [130]


def test_outside_the_main_thread_nothing_is_handled():
    found = []

    def work():
        with stopping(), waiting():
            found.append(True)

    (thread := threading.Thread(target=work)).start()
    thread.join()
    assert found == [True]


@pytest.mark.long
@pytest.mark.parametrize("module", ["run", "plugins", "leaderboard"])
def test_a_signal_while_a_command_is_imported_is_one_line_too(module):
    process = subprocess.Popen([sys.executable, "-m", f"duo.{module}"], stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)  # the imports take seconds
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "stopped by SIGINT; the same command goes on\n"
    assert process.returncode == 130
