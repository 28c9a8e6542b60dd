"""python tests/stress.py FOLDER ROUNDS SEED [toys]: work on one cache, killed at random moments and started again.

Each round starts eight processes of one comparison on an empty cache, sends each a random signal at a random moment,
starts them again, and looks whether they left what an unbroken run leaves. They are forked from here, where everything
is imported already. With `toys` each makes a few modules of one number instead, through the same locks and files, in
milliseconds: a hundred rounds take a minute.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import load_file
from test_run import comparable

import duo.stages.compare  # noqa: F401 # here, for the processes that are forked
from duo import run
from duo.report import figures
from duo.report.command import run_command
from duo.stages.cache import finish, hold, load, open_cache
from duo.storage.files import replacing
from duo.storage.signals import end_at_once
from duo.training import trainer  # noqa: F401

PROCESSES, HANGS = 8, 240  # seconds
TOYS, STEPS = ["first", "second", "third"], 5
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


def start(work, output):
    """Forks a process that does the work, which returns an exit status; returns its id."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS[1:])  # until the child knows what to do
    child = os.fork()
    if not child:
        end_at_once()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS[1:])
    if child:
        return child
    log = os.open(f"{output}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    status = 70
    try:
        status = work()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


def compare(documents, output, cache):
    """Does the comparison."""
    return run.main([f"recipe={documents}/recipe.yaml", f"output={output}", f"cache={cache}"])


def make_toys(output, cache):
    """Makes every toy that the cache lacks, in an order of its own, and notes what they are."""

    def work():
        open_cache(cache)
        names = random.Random(str(output)).sample(TOYS, len(TOYS))
        found = {name: make_toy(cache / "backbones" / name, len(name) + TOYS.index(name)) for name in names}
        with replacing(output / "result.json") as path:
            path.write_text(json.dumps(dict(sorted(found.items()))))
        return 0

    return run_command(work)


def make_toy(folder, number):
    """The weight that so many steps lead to, each of which adds `number`; kept after every step, as a training's is."""
    module, weights, checkpoint = torch.nn.Linear(1, 1, bias=False), folder / "toy.safetensors", folder / "last.ckpt"
    with torch.no_grad(), hold(folder):
        if not weights.exists():
            module.weight.zero_()
            if checkpoint.exists():
                module.weight.copy_(torch.load(checkpoint)["weight"])
            while int(module.weight) < number * STEPS:
                module.weight += number
                with (folder / "steps").open("a") as steps:
                    steps.write(f"{int(module.weight)}\n")
                with replacing(checkpoint) as path:
                    torch.save({"weight": module.weight}, path)
            finish(module, weights)
        load(module, weights)
    return module.weight.item()


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
    """Raises AssertionError where something differs from the unbroken run, or a file is not as it should be."""
    for output in outputs:
        assert comparable(output) == comparable(whole), output
        assert "Traceback" not in Path(f"{output}.log").read_text(), f"{output}.log"
    check_files(folder)


def check_files(folder):
    """Raises AssertionError where something is held, or half-written."""
    for lock in folder.rglob("*.lock"):
        FileLock(lock).acquire(timeout=0)
    for path in folder.rglob("*.safetensors"):
        load_file(path)
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    unfinished = [path for path in folder.rglob("*") if ".part" in path.name]
    assert not unfinished, unfinished


def check_toys(folder, outputs, kills):
    """Raises AssertionError where a toy is not what its steps lead to, or more steps were made than were broken off."""
    expected = {name: float((len(name) + TOYS.index(name)) * STEPS) for name in TOYS}
    for output in outputs:
        assert json.loads((output / "result.json").read_text()) == expected, output
        assert "Traceback" not in Path(f"{output}.log").read_text(), f"{output}.log"
    steps = [path.read_text().splitlines() for path in folder.glob("cache/backbones/*/steps")]
    assert len(TOYS) * STEPS <= sum(map(len, steps)) <= len(TOYS) * STEPS + kills
    check_files(folder)


def disturbed_rounds(folder, rounds, chance, longest, work, check):
    """Starts eight processes, sends each a signal, starts them again and checks, again and again.

    Args:
        longest: seconds within which each is sent its signal.
        work: does a process's work; takes its output and the cache.
        check: looks at a round's folder, its outputs, and how many signals there were.
    """
    for number in range(rounds):
        round_folder = folder / f"round{number}"
        round_folder.mkdir()
        outputs = [round_folder / f"run{process}" for process in range(PROCESSES)]
        cache = round_folder / "cache"
        children = {output: start(partial(work, output, cache), output) for output in outputs}
        sent = disturb(children, chance, longest)
        for output, status in statuses(children).items():
            assert status in (0, -signal.SIGKILL, 128 + sent[output]), f"{output}.log: {status} after {sent[output]}"
        again = {output: start(partial(work, output, cache), output) for output in outputs}
        assert set(statuses(again).values()) == {0}, round_folder
        check(round_folder, outputs, len(sent))
        shutil.rmtree(round_folder)
        print(f"round {number}: {[sent[output].name for output in outputs]}", flush=True)


def main(folder, rounds, seed, toys=""):
    figures.draw = lambda *_: None  # half of the time, and nothing waits for them
    torch.set_num_threads(1)  # before anything is computed: threads do not survive a fork
    chance, documents, whole = random.Random(seed), folder / "documents", folder / "whole"
    if toys:
        whole.mkdir(parents=True)
        work, check = make_toys, check_toys
    else:
        write_documents(documents)
        work = partial(compare, documents)
        check = lambda folder, outputs, kills: check_round(folder, outputs, whole)  # noqa: E731
    began = time.monotonic()
    alone = start(partial(work, whole, folder / "whole-cache"), whole)
    assert statuses({whole: alone}) == {whole: 0}, f"{whole}.log"
    longest = 2 * (time.monotonic() - began)
    print(f"an unbroken run takes {longest / 2:.1f} s", flush=True)
    disturbed_rounds(folder, rounds, chance, longest, work, check)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
