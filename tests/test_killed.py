"""Runs killed with SIGKILL at several moments and started again equal the whole one; several processes equal one."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT, command
from safetensors.torch import load_file
from test_run import comparable, same_weights

pytestmark = pytest.mark.long
RUN = ["recipe=tiny", "cache=none", "stage1.steps=80", "stage1.checkpoint_every=10", "stage3.steps=40"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    command(*RUN, f"output={folder}")
    return folder


def killed(folder, moment, seconds):
    """Starts the run and kills it so many seconds after it says `moment`; returns whether that found it running."""
    arguments = [sys.executable, "-m", "duo.run", *RUN, f"output={folder}"]
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    said = ""
    while moment not in said:
        said += (part := process.stdout.read(1))
        if not part:  # an earlier kill came late, so that this start was past the moment
            return False
    threading.Thread(target=process.stdout.read, daemon=True).start()
    time.sleep(seconds)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return alive


MOMENTS = [("data  ", 1.0), ("stage 3  training", 0.1), ("evaluation  oracle", 0.2)]  # stress.py takes all others


@pytest.mark.parametrize(("moment", "seconds"), MOMENTS)
def test_a_run_killed_at_any_moment_ends_as_the_whole_one(whole, tmp_path, moment, seconds):
    assert killed(tmp_path / "run", moment, seconds)
    command(*RUN, f"output={tmp_path}/run")
    assert comparable(tmp_path / "run") == comparable(whole)
    assert same_weights(tmp_path / "run", whole)


def test_a_run_killed_again_and_again_ends_as_the_whole_one(whole, tmp_path):
    for moment in (
        "stage 1  training",
        "stage 3  training",
        "evaluation  softmax_budget",
    ):  # each start says the later ones
        assert killed(tmp_path / "run", moment, 0.1)
    command(*RUN, f"output={tmp_path}/run")
    assert comparable(tmp_path / "run") == comparable(whole)


def test_two_processes_train_and_score_what_one_does(tmp_path):
    """Every token is scored once, and the losses agree, with gentle rates that do not amplify rounding."""
    run = [
        "recipe=tiny",
        "stage1.steps=8",
        "stage1.learning_rate=1e-4",
        "stage3.steps=4",
        "stage3.learning_rate=1e-4",
        f"cache={tmp_path}",
    ]
    two = ["trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp"]
    command(*run, "cache=none", f"output={tmp_path}/one")
    command(*run, "cache=none", f"output={tmp_path}/two", *two, fresh=True)  # Lightning starts the command again
    one, other = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    for holdout in ("text", "code"):
        for row in ("all_small", "all_big", "random"):
            ours, theirs = (result["baselines"][row][holdout] for result in (one, other))
            assert ours["tokens"] == theirs["tokens"] == 16384
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
            assert ours["share"] == pytest.approx(theirs["share"])
    ours, theirs = (load_file(tmp_path / name / "backbone.safetensors") for name in ("one", "two"))
    assert all(ours[key].allclose(theirs[key], atol=1e-5) for key in ours)


def test_the_wheel_runs_the_main_job_from_any_folder(small, tmp_path):
    def pip(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "pip", *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    pip("wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("duo_llm-*.whl")
    pip("install", "--quiet", "--no-deps", "--target", tmp_path / "site", wheel)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command(*small, f"cache={tmp_path}/cache", "output=run", cwd=elsewhere, PYTHONPATH=str(tmp_path / "site"))
    result = json.loads((elsewhere / "run" / "result.json").read_text())
    assert result["provenance"]["commit"] is None  # so it ran from the wheel
    assert result["router"] == "softmax_budget"
