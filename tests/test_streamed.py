"""Training on a stream: stopped and gone on with, on several processes, with memory that stays flat."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace

import numpy as np
import pytest
from conftest import ROOT, command
from safetensors.torch import load_file
from toy_streams import TOTAL, documents, opened, settings, stream, take, write

from duo.training import DuoModule


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for kind in "ab":
        for shard in range(3):
            write(folder / f"{kind}{shard}.jsonl", documents(kind, 300)[shard::3])
    write(folder / "held.jsonl", documents("h", 60))
    return folder


def arguments(shards, steps=24):
    """A run of `tiny`, smaller still, on a mixture that is streamed."""
    return [
        "recipe=tiny", "data.source=files", "data.stream=true", f"data.holdouts.held=[{shards}/held.jsonl]",
        f"data.mix.a.train=[{shards}/a*.jsonl]", "data.mix.a.weight=0.7", f"data.mix.b.train=[{shards}/b*.jsonl]",
        "data.mix.b.weight=0.3", "data.lanes=4", "data.shuffle=64", "data.train_bytes=0", "data.tokens=32",
        "data.batch_size=8", "backbone.vocabulary=300", "backbone.layers=2", "backbone.width=16", "budget.big=1",
        f"stage1.steps={steps}", "stage1.warmup_steps=2", "stage1.learning_rate=1e-3", "stage1.checkpoint_every=5",
        "stage1.log_every=2", "stage3.steps=8", "stage3.warmup_steps=2", "stage3.learning_rate=1e-3",
        "stage3.checkpoint_every=4", "stage3.log_every=2", "data.holdout_tokens=512", "data.calibration_tokens=256",
        "data.subset_sequences=4", "data.subset_tokens=8",
    ]  # fmt: skip


def weights(folder):
    return [load_file(folder / f"{name}.safetensors") for name in ("backbone", "router")]


def alike(ours, theirs, tolerance=0.0):
    return all(
        one[key].allclose(other[key], rtol=0, atol=tolerance)
        for one, other in zip(ours, theirs, strict=True)
        for key in one
    )


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    command(*arguments(shards), f"output={folder}/run", f"cache={folder}/cache")
    return folder / "run"


def test_a_run_that_streams_and_is_asked_to_stop_goes_on_to_the_same_weights(shards, whole, tmp_path, monkeypatch):
    step, stopped = DuoModule.training_step, []

    def stop(self, batch, index):
        if self.global_step == 11 and not stopped:
            stopped.append(os.kill(os.getpid(), signal.SIGTERM))
        return step(self, batch, index)

    run = [*arguments(shards), f"output={tmp_path}/run", f"cache={tmp_path}/cache"]
    with monkeypatch.context() as patch:
        patch.setattr(DuoModule, "training_step", stop)
        printed = command(*run, "data.workers=2", check=143)
    assert printed.splitlines()[-1].endswith("stopped by SIGTERM; the same command goes on")  # behind the bar
    assert not (tmp_path / "run" / "backbone.safetensors").exists()
    command(*run)  # without workers: the order does not know
    assert alike(weights(tmp_path / "run"), weights(whole))


def test_a_streamed_backbone_is_not_published(whole, tmp_path, capsys):
    from duo.leaderboard import __main__ as leaderboard

    assert leaderboard.main(["submit", str(whole), f"leaderboard.store={tmp_path}", f"cache={whole.parent}/cache"]) == 1
    assert "data.stream=true keeps no tokens" in capsys.readouterr().err.replace("\n", " ")
    assert not [*tmp_path.rglob("*.safetensors")]


@pytest.mark.long
def test_a_streaming_process_that_is_killed_goes_on_to_the_same_weights(shards, tmp_path):
    run = [*arguments(shards, 120), "data.workers=2"]
    command(*run, f"output={tmp_path}/whole", "cache=none")
    cut = [sys.executable, "-m", "duo.run", *run, f"output={tmp_path}/run", f"cache={tmp_path}/cache"]
    process = subprocess.Popen(cut, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True)
    while not [*tmp_path.glob("cache/backbones/*/last.ckpt")]:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while ended := [*group_of(process.pid)]:  # its workers notice that it is gone
        assert time.monotonic() < deadline, ended
        time.sleep(0.5)
    command(*run, f"output={tmp_path}/run", f"cache={tmp_path}/cache")
    assert alike(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def group_of(leader):
    """The processes of a session that are still there."""
    listed = subprocess.run(["ps", "-eo", "pid,sid,stat"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()[1:]]
    return [row for row in rows if row[1] == str(leader) and not row[2].startswith("Z")]


@pytest.mark.long
def test_two_processes_stream_what_one_does(shards, whole, tmp_path):
    two = ["trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp", "data.workers=2"]
    command(*arguments(shards), *two, f"output={tmp_path}/run", "cache=none", fresh=True)
    assert alike(weights(tmp_path / "run"), weights(whole), 1e-4)


SPEAKING = """
import json, sys
import numpy as np, torch
from pathlib import Path
from toy_streams import opened, settings, stream
from duo.data.stream import Share

folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet{world}", rank=rank, world_size=world)
data = opened(settings(folder), folder / "cache")
one = stream(data._plan, Share(rank, world), workers=int(sys.argv[4]))
if (folder / "state").exists():
    one.load_state_dict(torch.load(folder / "state", weights_only=True))
batches = iter(one)
parts = [next(batches) for _ in range(20)]
np.savez(folder / f"{world}-{rank}.npz", places=[part[0] for part in parts], tokens=[part[1] for part in parts])
state = one.state_dict()
if rank == 0:
    torch.save(state, folder / "state")
torch.distributed.barrier()
"""


@pytest.mark.long
def test_processes_that_speak_by_gloo_leave_one_checkpoint_for_any_other_number(shards, tmp_path):
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = take([stream(opened(settings(tmp_path), tmp_path / "cache")._plan)], 60)
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    for round_, (world, workers) in enumerate([(2, 2), (3, 0), (1, 2)]):
        started = [
            subprocess.Popen(
                [sys.executable, "-c", SPEAKING, tmp_path, str(rank), str(world), str(workers)], env=os.environ | paths
            )
            for rank in range(world)
        ]
        assert [process.wait() for process in started] == [0] * world
        found = [np.load(tmp_path / f"{world}-{rank}.npz") for rank in range(world)]
        places, tokens = (np.concatenate([part[name] for part in found], axis=1) for name in ("places", "tokens"))
        for at in range(20):
            assert np.array_equal(tokens[at][np.argsort(places[at])], whole[round_ * 20 + at])
    assert sorted(places[-1]) == [*range(59 * TOTAL, 60 * TOTAL)]


@pytest.mark.long
def test_memory_stays_flat_while_text_goes_through(tmp_path):
    """Of 96 MB; `benchmarks/stream.py --bytes 2e9` does it with two gigabytes."""
    spec = importlib.util.spec_from_file_location("stream", ROOT / "benchmarks" / "stream.py")
    spec.loader.exec_module(benchmark := importlib.util.module_from_spec(spec))
    points = [*benchmark.measure(Namespace(bytes=96e6, workers=1, prepare=False), tmp_path)]
    tenths = benchmark.most_by_tenth(points)
    assert max(tenths[5:]) < max(tenths[:5]) + 16e6


def test_help_tells_what_a_stream_is_set_by():
    printed = command("--help")
    for key in ("data.stream", "data.mix", "data.workers", "data.prepare", "data.lanes", "data.shuffle"):
        assert key in printed
