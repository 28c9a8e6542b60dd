"""Sweeps of real processes: stopped, killed, gone on with, and as jobs of a toy of SLURM."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import command
from test_run import comparable

from duo.sweep.machine import Slurm, Task
from duo.sweep.queue import End, work_off


@pytest.fixture
def typed(small, tmp_path):
    """What a sweep of four real processes takes."""
    fewer = ["data.holdout_tokens=512", "data.subset_sequences=4", "data.subset_tokens=8"]
    return [*small, *fewer, f"cache={tmp_path}/cache", f"output={tmp_path}/sweep", "budget.big=0,1", "seed=0,1"]


def begin(typed, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "duo.sweep", *typed], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment, start_new_session=True,
    )  # fmt: skip


def read_until(process, words):
    said = ""
    while words not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    return said


def workers(folder):
    """Processes that work for a sweep, by number."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"submitit" in (line := path.read_bytes()) and str(folder).encode() in line:
                found.append(int(path.parent.name))
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGINT, "begun  budget.big=0, seed=1"), (signal.SIGTERM, "begun  backbone")],
)
def test_a_sweep_that_is_stopped_leaves_no_process_behind_and_goes_on(typed, tmp_path, number, moment):
    process = begin(typed)
    read_until(process, moment)
    time.sleep(2)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)  # as a terminal does
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert said.splitlines()[-1] == f"stopped by {signal.Signals(number).name}; the same command goes on"
    assert not workers(tmp_path)
    process = begin(typed)
    assert process.communicate(timeout=600)[0].count("begun  ") >= 2
    assert process.returncode == 0


@pytest.mark.long
def test_a_run_that_is_killed_is_told_and_the_others_go_on(typed, tmp_path):
    process = begin(typed)
    read_until(process, "begun  budget.big=0, seed=1")
    time.sleep(1)
    for number in workers(f"{tmp_path}/sweep/jobs/budget.big=0,seed=1"):
        if b"_submit" in Path(f"/proc/{number}/cmdline").read_bytes():
            os.kill(number, signal.SIGKILL)
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 1
    assert "failed  budget.big=0, seed=1: it ended without a word (killed, or out of memory?) (log: " in said
    assert "done  budget.big=1, seed=1" in said
    assert "1 failed; the same command goes on with them" in said
    process = begin(typed)
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 0
    assert [line for line in said.splitlines() if line.startswith("begun  budget")] == ["begun  budget.big=0, seed=1"]
    command(f"recipe={tmp_path}/sweep/recipe.yaml", f"output={tmp_path}/one")
    ours, theirs = comparable(tmp_path / "sweep"), comparable(tmp_path / "one")
    assert ours["groups"] == theirs["groups"]


SBATCH = """#!/bin/sh
id=$(($(ls FOLDER/*.pid 2>/dev/null | wc -l) + 100))
export SLURM_JOB_ID=$id SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NUM_NODES=1
cp "$1" FOLDER/$id.sh
sh "$1" </dev/null >FOLDER/$id.out 2>&1 &
echo $! >FOLDER/$id.pid
echo "Submitted batch job $id"
"""


SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do
  [ "$1" = --output ] && { out=$(echo "$2" | sed "s/%j/$SLURM_JOB_ID/; s/%t/0/"); shift; }
  shift
done
exec "$@" >>"$out" 2>&1
"""


SACCT = """#!/bin/sh
echo 'JobID|State|NodeList'
for file in FOLDER/*.pid; do
  kill -0 $(cat "$file") 2>/dev/null && state=RUNNING || state=COMPLETED
  echo "$(basename "$file" .pid)|$state|here"
done
"""


SCANCEL = """#!/bin/sh
kill $(cat FOLDER/$1.pid)
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A toy of SLURM, which runs every job at once, here."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, script in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": SCANCEL}.items():
        (folder / name).write_text(script.replace("FOLDER", str(folder)))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


@pytest.mark.long
def test_a_job_of_slurm_is_given_what_was_asked_for_and_its_failure_is_told(slurm, tmp_path):
    machine, ends = Slurm({"time": 7, "partition": "gpu", "cpus_per_task": 3}), []
    tasks = [Task(name, len, arguments, tmp_path / name, 1) for name, arguments in (("good", ()), ("bad", ("x",)))]
    work_off(tasks, machine, 1, ends.append)
    failed = {end.task.name: end.failed for end in ends if isinstance(end, End)}
    assert failed["good"] is None
    assert failed["bad"].startswith("exit status 1 (log: ")
    for script in (slurm / "100.sh", slurm / "101.sh"):
        assert {"#SBATCH --time=7", "#SBATCH --partition=gpu", "#SBATCH --cpus-per-task=3"} <= {
            *script.read_text().splitlines()
        }


@pytest.mark.long
def test_jobs_of_slurm_are_cancelled_when_the_sweep_is_stopped(slurm, tmp_path):
    def stop(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_off([Task("long", time.sleep, (60,), tmp_path / "long", 1)], Slurm({"time": 7}), 1, stop)
    number = int((slurm / "100.pid").read_text())
    time.sleep(1)
    state = Path(f"/proc/{number}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"
