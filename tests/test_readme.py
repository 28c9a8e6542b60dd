"""The README's code, as it stands there."""

import re
import subprocess
import sys
from types import SimpleNamespace

from conftest import ROOT, random_tokens, toy_backbone
from toy_texts import toy_reader

from duo import Budget, Spec, Trial


def readme_blocks():
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_readmes_script_runs(tmp_path):
    script = readme_blocks()[0]
    assert len([line for line in script.splitlines() if line.strip()]) <= 15
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "text" in done.stdout
    assert "loss=" in done.stdout


def test_the_readmes_prompts_are_continued(capsys):
    reader = toy_reader()
    data = SimpleNamespace(tokenizer=reader.tokenizer)
    exec(readme_blocks()[1], names := {"backbone": reader.backbone, "router": reader.router, "data": data})
    assert capsys.readouterr().out == names["texts"][0].text.partition("\n\n")[0]


def test_the_readmes_run_is_loaded_and_read(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    script = re.sub(r'"outputs/router_budget6-\w+"', '"run"', readme_blocks()[2])
    exec(script, names := {})
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == len(names["reading"].texts)
    assert all(re.search(r"\d nats, big in layers \[[\d, ]*\]$", line) for line in lines)
    assert re.fullmatch(r"\d\.\d+ nats and \d\.\d+ MFLOPs a token", last)
    assert {"loss", "minus_random", "flops_per_token"} <= {*names["table"].columns}


def test_the_readmes_router_spends_its_budget():
    names = {}
    exec(readme_blocks()[3], names)
    router = names["EarlyFirst"](Spec(3, 16, Budget(1))).eval()
    trial = Trial(toy_backbone(), random_tokens(2, 5))
    assert trial.run(router.route(trial)).weight_BTLM.argmax(-1).tolist() == [[[2, 1, 1]] * 5] * 2
