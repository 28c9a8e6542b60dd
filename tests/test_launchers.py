"""Lightning says which of several processes this is; a variable that says otherwise is named, and nothing is begun."""

import os
import shutil
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import command
from test_training import QUIET, data, module_of, weights  # noqa: F401 # data is a fixture

from duo.storage import processes
from duo.training import fit
from duo.training.trainer import join_world

SLURM = {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "17"}


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"RANK": "1"}, "RANK=1"),
        ({"LOCAL_RANK": "2"}, "LOCAL_RANK=2"),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4"),
        ({"SLURM_PROCID": "3"}, "SLURM_PROCID=3"),
        (SLURM | {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4"}, "-u SLURM_NTASKS in front"),
        (SLURM | {"SLURM_PROCID": "3", "RANK": "3"}, "-u RANK -u SLURM_PROCID in front"),
        (SLURM | {"SLURM_NTASKS": "4"}, "-u SLURM_NTASKS"),
        ({"RANK": "one"}, "RANK='one'"),
    ],
)  # fmt: skip
def test_a_stray_variable_of_a_launcher_is_named_and_nothing_is_begun(small, tmp_path, monkeypatch, environment, named):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    printed = command(*small, f"output={tmp_path}/run", f"cache={tmp_path}/cache", check=1)
    assert named in printed
    assert "env -u" in printed
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("environment", [SLURM, {"RANK": "0", "WORLD_SIZE": "1"}, {"RANK": ""}])
def test_one_task_of_a_launcher_is_a_process_as_any_other(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert join_world({"accelerator": "cpu"}) == torch.device("cpu")
    assert processes.is_chief()


def test_on_slurm_a_training_starts_from_no_other_runs_checkpoint(data, tmp_path, monkeypatch):  # noqa: F811
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    fit(module_of(seed=1), data, tmp_path / "other", "test", QUIET)
    for folder in (tmp_path, tmp_path / "other"):  # what Lightning leaves there for a job that is started again
        shutil.copy(tmp_path / "other/last.ckpt", folder / "hpc_ckpt_1.ckpt")
    (whole, ours) = (module_of(), module_of())
    fit(ours, data, tmp_path / "ours", "test", QUIET)
    for name in SLURM:
        monkeypatch.delenv(name)
    fit(whole, data, tmp_path / "whole", "test", QUIET)
    assert torch.equal(weights(ours), weights(whole))


def test_only_the_first_process_is_the_chief():
    try:
        processes.join(1)
        assert not processes.is_chief()
    finally:
        processes.join(0)
    assert processes.is_chief()


def lose(error):
    """What comes of an error of torch's that a router's loss wrapped."""
    with processes.naming_lost():
        try:
            raise error
        except RuntimeError as inner:
            raise ValueError("router 'random' failed in loss") from inner


def test_a_process_that_is_lost_is_named_by_the_first_of_those_that_are_left(monkeypatch):
    gone = RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:53424")
    with pytest.raises(ValueError, match="router 'random' failed"):
        lose(gone)  # there is no other process
    monkeypatch.setattr(processes, "is_distributed", lambda: True)
    monkeypatch.setattr(processes, "_told", threading.Event())
    monkeypatch.setattr(processes, "is_chief", lambda: True)
    with pytest.raises(ValueError, match="another process of this run has ended.*the same command goes on"):
        lose(gone)
    with pytest.raises(ValueError, match="router 'random' failed"):
        lose(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    monkeypatch.setattr(processes, "is_chief", lambda: False)
    with pytest.raises(SystemExit):
        lose(gone)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(processes, "PARENT", -1)  # the first one was its parent, and is gone
    with pytest.raises(ValueError, match="another process"):
        lose(gone)


@pytest.mark.long
@pytest.mark.parametrize("moment", ["GLOBAL_RANK: 1", "evaluation  oracle"])
def test_a_run_on_two_processes_that_is_asked_to_stop_leaves_none_behind(small, tmp_path, moment):
    two = ["trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp"]
    process = subprocess.Popen(
        [sys.executable, "-m", "duo.run", *small, *two, f"output={tmp_path}/run", f"cache={tmp_path}/cache"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    said = ""
    while moment not in said:
        said += (part := process.stdout.read(1))
        assert part, said
    process.terminate()  # the first process alone
    said += process.communicate(timeout=60)[0]
    assert process.returncode == 143, said
    assert said.count("stopped by SIGTERM") == 1
    assert "Traceback" not in said
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("a process is left")
