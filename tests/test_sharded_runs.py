"""Whole runs whose backbone is trained in shards: launched in several ways, as on two machines, killed and gone on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import command
from safetensors.torch import load_file

pytestmark = pytest.mark.long
TWO = ["trainer.accelerator=cpu", "trainer.devices=2"]


def same_weights(one, other, tolerance=0.0):
    """Whether two runs left the same backbone and router."""
    for name in ("backbone", "router"):
        ours, theirs = (load_file(folder / f"{name}.safetensors") for folder in (one, other))
        if not all(ours[key].allclose(theirs[key], rtol=0, atol=tolerance) for key in ours):
            return False
    return True


def launch(arguments, *torchrun):
    """Starts the command, by torchrun if it is told how."""
    by = ["-m", "torch.distributed.run", *torchrun, "-m", "duo.run"] if torchrun else ["-m", "duo.run"]
    return subprocess.Popen(
        [sys.executable, *by, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip


def end(process, check=0):
    said = process.communicate(timeout=3600)[0]
    assert process.returncode == check, said
    return said


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """A run on two processes that torchrun starts, which share the weights."""
    folder = tmp_path_factory.mktemp("whole")
    arguments = [*small, *TWO, "trainer.strategy=fsdp2", f"output={folder}/run", f"cache={folder}/cache"]
    end(launch(arguments, "--standalone", "--nproc-per-node=2"))
    return folder / "run"


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def test_two_agents_of_one_process_each_give_what_one_agent_of_two_gives(small, whole, tmp_path):
    """Two nodes, but for the network between them; they see one cache."""
    meeting = [
        "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{free_port()}",
        "--rdzv-id=duo", "--local-addr=localhost",
    ]  # fmt: skip
    run = [
        *small, "trainer.accelerator=cpu", "trainer.devices=1", "trainer.num_nodes=2", "trainer.strategy=fsdp2",
        f"output={tmp_path}/run", f"cache={tmp_path}/cache",
    ]  # fmt: skip
    agents = [launch(run, *meeting) for _ in range(2)]
    said = [end(agent) for agent in agents]
    assert same_weights(tmp_path / "run", whole)
    assert sum("reusing" in one or "evaluation" in one for one in said) == 1  # one process speaks


def test_the_weights_are_those_of_one_process_and_every_token_is_scored_once(small, whole, tmp_path):
    gentle = ["stage1.learning_rate=1e-4", "stage3.learning_rate=1e-4"]
    command(*small, *gentle, "cache=none", f"output={tmp_path}/one")
    end(launch([*small, *gentle, *TWO, "trainer.strategy=fsdp2", "cache=none", f"output={tmp_path}/two"]))
    assert same_weights(tmp_path / "one", tmp_path / "two", 1e-5)
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    for row in ("all_small", "all_big", "random"):
        ours, theirs = (result["baselines"][row]["held"] for result in (one, two))
        assert ours["tokens"] == theirs["tokens"]
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


def wait_for_checkpoint(process, folder):
    while not [*folder.glob("backbones/*/last.ckpt")]:
        assert process.poll() is None
        time.sleep(0.05)


def children(process):
    """The processes that a process started and that have not ended."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in listed.stdout.split()]


def gone(group):
    for _ in range(300):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("who", ["first", "second"])
def test_a_process_that_is_killed_ends_all_in_one_line_and_the_same_command_goes_on(small, whole, tmp_path, who):
    run = [*small, *TWO, "trainer.strategy=fsdp2", f"output={tmp_path}/run", f"cache={tmp_path}/cache"]
    process = launch([*run, "stage1.log_every=1"])  # no identity covers it
    wait_for_checkpoint(process, tmp_path / "cache")
    (second,) = (pid for pid in children(process) if b"duo.run" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(process.pid if who == "first" else second, signal.SIGKILL)
    said = process.communicate(timeout=3600)[0]
    assert process.returncode == (-signal.SIGKILL if who == "first" else 1), said
    assert said.count("another process of this run has ended") == 1, said
    assert "Traceback" not in said
    assert gone(process.pid)
    assert not (tmp_path / "run" / "backbone.safetensors").exists()
    if who == "second":
        end(launch(run))
        assert same_weights(tmp_path / "run", whole)
