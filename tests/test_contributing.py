"""What CONTRIBUTING.md tells a newcomer to type, typed."""

import os
import re
import subprocess
import sys
import sysconfig
from types import ModuleType

import pytest
from conftest import ROOT

from duo.testing import CHECKS, SPEC, run_checks
from duo.testing.lab import Lab

BLOCKS = re.findall(r"```(\w*)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Runs shell lines in an empty folder, in an environment of its own on top of this one, where pip may install."""
    folder = tmp_path_factory.mktemp("newcomer")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    pip = folder / "venv" / "bin" / "pip"
    pip.write_text('#!/bin/sh\nexec python -m pip "$@"\n')
    pip.chmod(0o755)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "duo.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    environment = os.environ | {
        "PATH": f"{folder / 'venv' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say: build with what is here
    }
    (folder / "work").mkdir()

    def run(lines):
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", lines], cwd=folder / "work", env=environment,
            capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_every_block_is_one_that_is_run():
    assert {kind for kind, _ in BLOCKS} == {"bash", "python"}
    assert all(text.startswith("# my_router/") for kind, text in BLOCKS if kind == "python")


def test_the_gate_that_remembers_passes_every_check_and_leaves_early():
    (text,) = (text for kind, text in BLOCKS if kind == "python" and "class EarlyExit" in text)
    module = ModuleType("early_exit")
    exec(text, module.__dict__)
    assert [outcome for outcome in run_checks(module.EarlyExit) if outcome.error] == []
    lab = Lab(module.EarlyExit, SPEC)
    later_BTL = lab.route(lab.router(), lab.batch())[..., 1:] - lab.route(lab.router(), lab.batch())[..., :-1]
    assert (later_BTL <= 0).all()  # never big again
    assert (later_BTL < 0).any()


@pytest.mark.long
def test_a_newcomer_writes_checks_and_trains_a_router(shell):
    printed = ""
    for kind, text in BLOCKS:
        path, _, rest = text.removeprefix("# ").partition("\n")
        printed += shell(text if kind == "bash" else f"test -d $(dirname {path}); cat > {path} << 'END'\n{rest}END")
    assert re.search(r"my_router +duo-my_router 0.1.0 .* deployable", printed)
    assert printed.count("all checks passed; my_router is deployable") == 2
    assert re.search(r"my_router +\d\.\d+ ±", printed)  # its row in the table of the run


@pytest.mark.long
def test_what_new_writes_passes_its_own_tests_and_the_house_style(shell):
    shell("mkdir here; python -m duo.plugins new tidy --package here; pip install ./here")
    printed = shell(
        "python -m duo.plugins check tidy; python -m pytest -q here; cd here; python -m ruff check --line-length 120 ."
    )
    assert "all checks passed" in printed
    assert f"{2 * len(CHECKS)} passed" in printed  # with two modules and with three
    shell("python -m ruff format --check --line-length 120 here")
    shell("python -m mypy --strict --no-warn-return-any here/duo_tidy/router.py")
