"""Toys: small random backbones, batches and recipes, instead of mocks."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import evaders
import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # two workers with two threads each would wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)

from duo import Backbone, BackboneConfig, Router, run
from duo.data.documents import split
from duo.data.shelf import open_shelf
from duo.data.sources import find_files
from duo.leaderboard import __main__ as leaderboard
from duo.recipe import load
from duo.routing.meter import meter_of
from duo.storage.store import Store

ROOT = Path(__file__).parents[1]
os.fsync = lambda file: None  # milliseconds a file, thousands of times: no test outlives a power cut
# pytest imports readline, which gives the terminal's width to every child: tables in files would obey it
for said in ("COLUMNS", "LINES"):
    os.environ.pop(said, None)
    os.unsetenv(said)  # whatever Python knows of it


# a finished run and a board of it take a minute to make
SHARE_A_BOARD = (
    "advised", "board", "compare_command", "convert", "difficulty_command", "downstream", "entries", "figures",
    "generate_command", "kept", "leaderboard", "readme", "schema", "sealed", "secrets", "submit", "verify",
)  # fmt: skip


def pytest_xdist_make_scheduler(config, log):
    """Tests of one file go to one worker, for what its fixtures make; those that share a board all to the same."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "board" if file.endswith(tuple(f"test_{name}.py" for name in SHARE_A_BOARD)) else file

    return Scheduling(config, log)


def load_shipped(name):
    """A shipped recipe as it stands; those that need somebody's model, without it."""
    return load(name, ["backbone.small_from=null"] if name.startswith("pretrained") else [])


def toy_config(**changes):
    return BackboneConfig(
        **{"layers": 3, "width": 16, "heads": 4, "big": 32, "small": 4, "vocabulary": 64, "positions": 64} | changes
    )


def toy_backbone(seed=0, **changes):
    """A random backbone whose weights are large enough that every part of it matters."""
    torch.manual_seed(seed)
    backbone = Backbone(toy_config(**changes))
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return backbone.eval()


def backbone_of(trial):
    """The backbone of a trial, which offers no router an attribute of it."""
    return trial._Trial__backbone


def pass_flops(trial):
    """FLOPs of a trial's passes and searches, without those of the gates that were asked."""
    return meter_of(trial.meter).costs.pass_flops


def random_route(batch, tokens, layers, modules=(1, 2), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(modules)[torch.randint(len(modules), (batch, tokens, layers), generator=generator)]


def random_tokens(batch, tokens, vocabulary=64, seed=0):
    return torch.randint(vocabulary, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def command(*arguments, check=0, cwd=None, fresh=False, **environment):
    """Runs `python -m duo.run` as a user would; returns what it printed.

    Here in this process, to spare the seconds that the imports take; in one of its own where that is asked for, or it
    needs a folder or an environment.
    """
    if cwd or environment or fresh:
        status, printed = _elsewhere(arguments, cwd, environment)
    else:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            status = run.main([*map(str, arguments)])
        printed = out.getvalue() + err.getvalue()
    assert status == check, f"exit status {status}\n{printed}"
    assert "Traceback" not in printed
    return printed


def _elsewhere(arguments, cwd, environment):
    done = subprocess.run(
        [sys.executable, "-m", "duo.run", *map(str, arguments)],
        cwd=cwd, timeout=300, capture_output=True, text=True, env=os.environ | environment, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


class Parts(NamedTuple):
    train: list
    calibration: dict
    holdouts: dict


def split_of(config):
    """The documents of each part of a split."""
    with tempfile.TemporaryDirectory() as folder, open_shelf(Path(folder, "shelf"), config.seed) as shelf:
        parts = {name: [*shelf.texts(name)] for name in split(config, find_files(config), shelf)}
    named = lambda kind: {name[len(kind) :]: parts[name] for name in parts if name.startswith(kind)}  # noqa: E731
    return Parts(parts["train"], named("calibration."), named("holdouts."))


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder of small documents of its own, for `data.source=files`."""
    folder = tmp_path_factory.mktemp("documents")
    for index in range(60):
        words = " ".join(f"word{(index * 7 + step * step) % 97}" for step in range(120))
        (folder / f"{'held' if index % 6 == 0 else 'train'}{index}.txt").write_text(f"Document {index}. {words}\n")
    return folder


@pytest.fixture(scope="session")
def small(files):
    """Arguments that make `tiny` smaller still, on `files`."""
    return [
        "recipe=tiny", "data.source=files", f"data.train=['{files}/train*.txt']",
        f"data.holdouts.held=['{files}/held*.txt']",
        "data.train_bytes=0", "data.tokens=32", "data.batch_size=8", "backbone.vocabulary=300", "backbone.layers=2",
        "backbone.width=16", "budget.big=1", "stage1.steps=12", "stage1.warmup_steps=2", "stage1.checkpoint_every=4",
        "stage1.log_every=2", "stage3.steps=8", "stage3.warmup_steps=2", "stage3.checkpoint_every=4",
        "stage3.log_every=2",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def finished(small, tmp_path_factory):
    """A finished run of the learned router, and its cache."""
    folder = tmp_path_factory.mktemp("leaderboard")
    command(*small, f"output={folder}/run", f"cache={folder}/cache")
    return folder


@pytest.fixture(scope="session")
def submitted(finished):
    """The store that the run was submitted to."""
    settings = [f"leaderboard.store={finished}/board", f"cache={finished}/cache"]
    assert leaderboard.main(["submit", f"{finished}/run", "--note", "<b>ours</b> | the first", *settings]) == 0
    return finished / "board"


@pytest.fixture
def board(submitted, tmp_path):
    """A store of one's own with the same content."""
    return Store(str(shutil.copytree(submitted, tmp_path / "board")))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """Registers the evaders as a package of their own, as pip would.

    For one file alone: some of them end the process they run in, as that of a test that runs all routers there are.
    """
    folder = tmp_path_factory.mktemp("site")
    info = folder / "strange_evaders-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-evaders\nVersion: 1.0\n")
    names = [name for name, kind in vars(evaders).items() if isinstance(kind, type) and issubclass(kind, Router)]
    points = "".join(f"{name.lower()} = evaders:{name}\n" for name in names if name != "Router")
    (info / "entry_points.txt").write_text(f"[duo.routers]\n{points}")
    sys.path.append(str(folder))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(folder))
    importlib.invalidate_caches()


@pytest.fixture(scope="module")
def subject_of(strangers, small, finished):
    """An evader's name to the evader on the finished run's backbone, as the board has it, and the data."""
    from duo.leaderboard.sealed.scoring import Subject  # here: Lightning takes seconds, and few tests need it
    from duo.recipe import load
    from duo.stages import backbone_source
    from duo.stages.stage3 import train_or_load_router

    def made(name, *changes):
        recipe = load("tiny", [*small[1:], "data.subset_tokens=16", f"router.name={name}", *changes])
        source = backbone_source(recipe)
        data = source.open_data(finished / "cache")
        backbone = source.train_or_load(data, torch.device("cpu"))
        return Subject(recipe, backbone, train_or_load_router(recipe, backbone, data)), data

    return made


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser of its own for each file of tests."""
    from browsing import opened  # skips the test where there is no selenium

    with opened(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """The folder of a plain Llama, and what it says of some tokens."""
    from toy_pretrained import saved  # skips the test where there is no transformers

    folder = tmp_path_factory.mktemp("llama")
    return folder, saved(folder, "Llama")
