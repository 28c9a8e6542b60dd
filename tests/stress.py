"""python tests/stress.py FOLDER ROUNDS SEED: comparisons on one cache, killed at random moments and started again.

Each round starts eight processes of one comparison on an empty cache, sends each a random signal at a random moment,
starts them again until all have finished, and looks whether they left what an unbroken run leaves. They are forked from
here, where everything is imported already.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import load_file
from test_run import comparable

from duo import run, stages  # noqa: F401
from duo.report import figures
from duo.training import trainer  # noqa: F401

PROCESSES, HANGS = 8, 240  # seconds
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
RECIPE = """
base: tiny
data: {source: files, train: [FOLDER/train*.txt], holdouts: {held: [FOLDER/held*.txt]}, train_bytes: 0, tokens: 16,
  batch_size: 8, subset_sequences: 4, subset_tokens: 8, holdout_tokens: 512, calibration_tokens: 512}
backbone: {vocabulary: 300, layers: 2, width: 16}
budget: {big: 1}
stage1: {steps: 12, warmup_steps: 2, checkpoint_every: 3, log_every: 2}
stage3: {steps: 8, warmup_steps: 2, checkpoint_every: 3, log_every: 2}
compare:
  rows:
    learned: {router: {name: softmax_budget}}
    fixed: {router: {name: fixed_best}}
    random: {router: {name: random}}
    oracle: {router: {name: oracle}, full_holdout: false}
  gap: [fixed, oracle]
"""


def write_documents(folder):
    folder.mkdir(parents=True)
    for index in range(24):
        words = " ".join(f"word{(index * 7 + step * step) % 97}" for step in range(120))
        (folder / f"{'held' if index % 4 == 0 else 'train'}{index}.txt").write_text(f"Document {index}. {words}\n")
    (folder / "recipe.yaml").write_text(RECIPE.replace("FOLDER", str(folder)))


def start(documents, output, cache):
    """Forks a process that does the comparison; returns its id."""
    if child := os.fork():
        return child
    log = os.open(f"{output}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    status = 70
    try:
        status = run.main([f"recipe={documents}/recipe.yaml", f"output={output}", f"cache={cache}"])
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


def statuses(children):
    """Exit statuses by output, negative for a signal that was not handled.

    Raises:
        AssertionError: a process hangs.
    """
    found, end = {}, time.monotonic() + HANGS
    while len(found) < len(children):
        for output in children.keys() - found.keys():
            ended, status = os.waitpid(children[output], os.WNOHANG)
            if ended:
                found[output] = os.waitstatus_to_exitcode(status)
        assert time.monotonic() < end, f"hanging: {sorted(map(str, children.keys() - found.keys()))}"
        time.sleep(0.01)
    return found


def disturb(children, chance, longest):
    """Sends every process a signal at a moment of its own; returns what was sent."""
    moments = sorted((chance.uniform(0, longest), output) for output in children)
    began, sent = time.monotonic(), {}
    for moment, output in moments:
        time.sleep(max(began + moment - time.monotonic(), 0))
        sent[output] = chance.choice(SIGNALS)
        os.kill(children[output], sent[output])  # a process that has ended waits to be asked for its status
    return sent


def check_round(folder, outputs, whole):
    """Raises AssertionError where something differs from the unbroken run, is held, or is half-written."""
    for output in outputs:
        assert comparable(output) == comparable(whole), output
        assert "Traceback" not in Path(f"{output}.log").read_text(), f"{output}.log"
    for lock in folder.rglob("*.lock"):
        FileLock(lock).acquire(timeout=0)
    for path in folder.rglob("*.safetensors"):
        load_file(path)
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    unfinished = [path for path in folder.rglob("*") if ".part" in path.name]
    assert not unfinished, unfinished


def main(folder, rounds, seed):
    figures.draw = lambda *_: None  # half of the time, and nothing waits for them
    torch.set_num_threads(1)  # before anything is computed: threads do not survive a fork
    chance, documents = random.Random(seed), folder / "documents"
    write_documents(documents)
    began = time.monotonic()
    whole = folder / "whole"
    assert statuses({whole: start(documents, whole, folder / "whole-cache")}) == {whole: 0}, f"{whole}.log"
    longest = 2 * (time.monotonic() - began)
    print(f"an unbroken run takes {longest / 2:.1f} s", flush=True)
    for number in range(rounds):
        round_folder = folder / f"round{number}"
        round_folder.mkdir()
        outputs = [round_folder / f"run{process}" for process in range(PROCESSES)]
        children = {output: start(documents, output, round_folder / "cache") for output in outputs}
        sent = disturb(children, chance, longest)
        for output, status in statuses(children).items():
            assert status in (0, -signal.SIGKILL, 128 + sent[output]), f"{output}.log: {status} after {sent[output]}"
        again = {output: start(documents, output, round_folder / "cache") for output in outputs}
        assert set(statuses(again).values()) == {0}, round_folder
        check_round(round_folder, outputs, whole)
        shutil.rmtree(round_folder)
        print(f"round {number}: {[sent[output].name for output in outputs]}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
