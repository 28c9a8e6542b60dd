"""The Python of README and of the pages of docs/, as it stands there."""

import re
import subprocess
import sys

from conftest import ROOT, random_tokens, toy_backbone
from pages import PAGES, blocks, python_block
from toy_texts import toy_reader

from duo import Budget, Spec, Trial

SCRIPT, PROMPTS, LOAD, ROUTER = "import lightning as L\n", "from duo.inference", "import duo\n", "import torch\n"
FILES, FOLLOWS = "import json\n", "from math import"
"""How each begins."""


def test_every_block_of_python_is_run_here():
    found = [block.text for page in PAGES for block in blocks(page) if block.kind == "python"]
    assert len(found) == 6
    assert all(text.startswith((SCRIPT, PROMPTS, LOAD, ROUTER, FILES, FOLLOWS)) for text in found)


def test_the_script_of_ones_own_runs(tmp_path):
    script = python_block(SCRIPT)
    assert len([line for line in script.splitlines() if line.strip()]) <= 15
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "text" in done.stdout
    assert "loss=" in done.stdout


def test_the_prompts_are_continued(capsys):
    reader = toy_reader()
    given = {"backbone": reader.backbone, "router": reader.router, "tokenizer": reader.tokenizer}
    exec(python_block(PROMPTS), names := {**given})
    assert capsys.readouterr().out == names["texts"][0].text.partition("\n\n")[0]


def test_the_readmes_run_is_loaded_and_read(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    exec(python_block(LOAD).replace('"first"', '"run"'), names := {})
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == len(names["reading"].texts)
    assert all(re.search(r"\d nats, big in layers \[[\d, ]*\]$", line) for line in lines)
    assert re.fullmatch(r"\d\.\d+ nats and \d\.\d+ MFLOPs a token", last)
    assert {"loss", "minus_random", "flops_per_token"} <= {*names["table"].columns}


def test_the_files_of_a_run_hold_what_the_page_about_them_says(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    exec(re.sub(r'Path\(".*"\)', 'Path("run")', python_block(FILES)), names := {})
    assert [*names["told"]["scores"]]  # its assertion was made of each
    assert "minus_random" in capsys.readouterr().out


def test_the_oracles_loss_follows_the_number_of_routes_as_the_page_about_the_paper_says(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(python_block(FOLLOWS), {})
    said = "code {'routes': -0.97, 'big': -0.1}\ntext {'routes': -0.97, 'big': -0.05}\n"
    assert capsys.readouterr().out == said


def test_the_router_of_a_few_lines_spends_its_budget():
    names = {}
    exec(python_block(ROUTER), names)
    router = names["EarlyFirst"](Spec(3, 16, Budget(1))).eval()
    trial = Trial(toy_backbone(), random_tokens(2, 5))
    assert trial.run(router.route(trial)).weight_BTLM.argmax(-1).tolist() == [[[2, 1, 1]] * 5] * 2
