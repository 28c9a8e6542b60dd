"""The command for plugins, and what strangers' plugins may do to it and to a run."""

import math
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from conftest import ROOT, command, toy_backbone
from test_evaluate import SPEC, batches_of

from duo import Router, run
from duo.evaluation.evaluate import evaluate
from duo.plugins import TEMPLATE, main
from duo.routing import registry
from duo.training import DuoModule, Stage3Config

IMPORTS = "from dataclasses import dataclass\n\nimport torch\n\nimport duo"
PLUGINS = {
    "unfinished": "from duo import Rooter",
    "no_router": "class Plugin: ...",
    "needy": "class Plugin(duo.Router):\n    def __init__(self, spec):\n        raise KeyError('secrets.txt')\n"
    "    def route(self, trial): ...",
    "random": "class Plugin(duo.Router): ...",
    "raising": "class Plugin(duo.Router):\n    def route(self, trial):\n        return trial.wisdom",
    "soft": "class Plugin(duo.Router):\n    '''Cannot decide.'''\n    def route(self, trial):\n"
    "        return lambda x_BSD, layer: torch.full((*x_BSD.shape[:2], 3), 1 / 3)",
    "structured": "@dataclass\nclass Config:\n    sizes: list[int]\n    scale: float | None = None\n\n\n"
    "class Plugin(duo.Router):\n"
    "    def __init__(self, spec, config: Config | None = None, pair: tuple[int, ...] = (1,)):\n"
    "        super().__init__(spec)\n        self.found = config, pair\n"
    "    def route(self, trial):\n        return lambda x_BSD, layer: None",
    "drawing": "class Plugin(duo.Router):\n    '''Draws. Badly.'''\n    def route(self, trial):\n"
    "        score = torch.rand(*trial.tokens_BT.shape, self.spec.layers)\n"
    "        return duo.replay(duo.top(score, trial.counts(self.spec.budget)))",
}


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Makes packages `strange-NAME` that register a router, as pip would leave them; returns where they lie."""

    def install(*names):
        for name in names:
            (tmp_path / f"strange_{name}.py").write_text(f"{IMPORTS}\n\n\n{PLUGINS[name]}\n")
            info = tmp_path / f"strange_{name}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: strange-{name}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[duo.routers]\n{name} = strange_{name}:Plugin\n")
        monkeypatch.syspath_prepend(tmp_path)
        return tmp_path

    return install


def test_list_shows_every_router_with_its_package_and_kind_and_hides_none_behind_a_broken_one(site, capsys):
    site("unfinished", "no_router", "needy", "random", "drawing")
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in printed.splitlines() if line.split()}
    assert lines["oracle"][1] == "duo-llm"
    assert lines["oracle"][-1] == "bound"
    assert lines["drawing"] == ["drawing", "strange-drawing", "1.0", "Draws.", "deployable"]
    broken = {name for name, line in lines.items() if line[-1] == "broken"}
    assert broken >= {"unfinished", "no_router", "needy", "random"}
    for words in ("cannot import name 'Rooter'", "not a subclass of duo.Router", "'secrets.txt'", "registered twice"):
        assert words in " ".join(printed.split())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unfinished", "router 'unfinished' of package strange-unfinished 1.0 cannot be imported: ImportError"),
        ("no_router", "not a subclass of duo.Router: let strange_no_router:Plugin in its entry points name the class"),
        (
            "needy",
            "router 'needy' of package strange-needy 1.0 cannot be built with options {}: KeyError: 'secrets.txt'",
        ),
        ("random", "router 'random' is registered twice: "),
    ],
)
def test_a_plugin_that_cannot_be_had_is_told_in_one_line_with_its_package(site, capsys, name, said):
    site(name)
    for refused in (["check", name], ["recipe=tiny", f"router.name={name}"]):
        assert (main if refused[0] == "check" else run.main)(refused) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert said in line
    assert run.main(["--help"]) == 0
    assert "softmax_budget" in capsys.readouterr().out


def test_check_says_what_fails_and_why(site, capsys):
    site("raising", "soft", "drawing")
    for name, said in (
        ("raising", "it raised AttributeError: 'Trial' object has no attribute 'wisdom'"),
        ("soft", "wanted: In eval mode the gate answers"),
        ("drawing", "found:  the same call twice gives two routes: draw from trial.uniform alone"),
    ):
        assert main(["check", name]) == 1
        printed = capsys.readouterr().out
        assert said in printed
        assert f"router '{name}' of package strange-{name} 1.0" in printed.splitlines()[0]
        assert "checks failed" in printed.splitlines()[-1]


def test_check_tells_a_reason_once_and_that_it_is_behind_most_of_what_fails(site, capsys):
    site("raising")
    assert main(["check", "raising"]) == 1
    lines = capsys.readouterr().out.splitlines()
    found = [line for line in lines if line.strip().startswith("found:")]
    told = [line for line in found if not line.endswith("the same as above")]
    assert len({*told}) == len(told) < len(found) - 5
    assert lines[-1].endswith("of them for the same reason: mend that one first")


def test_lists_and_failures_are_as_wide_as_somebody_says(site, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    site("raising")
    main(["list"])
    main(["check", "raising"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_check_takes_options_and_says_whether_a_router_is_a_bound(capsys):
    assert main(["check", "fixed", "pattern=[2, 1, 1, 2]"]) == 0
    assert "all checks passed; fixed is deployable: it routes without labels" in capsys.readouterr().out
    assert main(["check", "fixed", "--skip", "pattern=[2, 0, 1, 2, 1, 0]"]) == 0
    assert "2 big and 2 skipped of 6 layers" in capsys.readouterr().out
    assert main(["check", "random", "p_big=0.9"]) == 1
    assert "FAILED  routes keep the budget" in capsys.readouterr().out
    assert main(["check", "random", "p_bug=0.9"]) == 1
    assert "did you mean p_big" in capsys.readouterr().err
    assert main(["check", "radnom"]) == 1
    assert "did you mean random" in capsys.readouterr().err


def test_new_refuses_what_it_would_spoil(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    for arguments, said in (
        (["random"], "exists already, in package duo-llm"),
        (["2nd"], "'2nd' cannot name a router"),
        (["class"], "'class' cannot name a router"),
        (["my-router"], "choose a lower-case identifier such as my_router"),
        (["mine"], "mine exists and holds something"),
        (["other", "--package", "mine/thesis.tex"], "thesis.tex exists and holds something"),
    ):
        assert main(["new", *arguments]) == 1
        assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.tex"]


@pytest.mark.parametrize("name", ["raising", "soft"])
def test_a_plugin_that_fails_in_a_run_is_named_with_its_package_and_the_way_out(site, small, tmp_path, name):
    arguments = [*small, f"router.name={name}", f"output={tmp_path}/run", f"cache={tmp_path}/cache"]
    printed = command(*arguments, check=1, PYTHONPATH=f"{site(name)}:{ROOT}").splitlines()
    (line,) = [line for line in printed if line.startswith("error: ")]
    assert line.startswith(f"error: router '{name}' of package strange-{name} 1.0 ")
    assert line.endswith(f"python -m duo.plugins check {name}")


class Failing(Router):
    def __init__(self, spec, loss=None):
        super().__init__(spec)
        self.weight, self.answer = torch.nn.Parameter(torch.ones(())), loss

    def route(self, trial):
        return lambda x_BSD, layer: 1 / 0

    def loss(self, trial):
        return self.answer(self.weight)


def test_what_a_router_raises_in_evaluation_is_a_value_error_with_its_cause():
    with pytest.raises(ValueError, match="Failing failed in route: ZeroDivisionError: division by zero") as error:
        evaluate(toy_backbone(), Failing(SPEC), batches_of())
    assert isinstance(error.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda weight: {}["a"], "Failing failed in loss: KeyError: 'a'"),
        (lambda weight: weight.repeat(2), "Failing failed in loss: ValueError: the loss must be one number"),
        (lambda weight: 1.0, "Failing failed in loss: AttributeError"),
        (lambda weight: weight.detach(), "Failing failed in loss: ValueError: the loss depends on no parameter"),
    ],
)
def test_what_a_router_raises_in_training_names_it(loss, said):
    module = DuoModule(toy_backbone().requires_grad_(False), Failing(SPEC, loss), Stage3Config(steps=1))
    with pytest.raises(ValueError, match=said):
        module.training_step(batches_of()[0], 0)


def test_a_routers_package_is_found_from_its_class():
    assert registry.describe(registry.load("fixed")).startswith("router 'fixed' of package duo-llm ")
    assert registry.describe(Failing) == "router test_plugins.Failing"


@pytest.mark.parametrize(
    ("hint", "fitting", "others"),
    [
        (int, [3, 10**30], [True, 2.0, "3", None]),
        (float, [0.5, 3], [True, math.nan, math.inf, "nan", [0.5]]),
        (float | None, [0.5, 3, None], [False, math.nan, "x"]),
        (bool, [True], [1, "true"]),
        (str, ["x"], [1, None]),
        (Sequence[int] | None, [[], [1, 2], (1, 2), None], [5, "12", [1.5], [True], [None]]),
        (Sequence[float], [[1, 0.5]], [[math.nan], [[1]]]),
        (tuple[int, ...], [[1, 2]], [["a"]]),
        (tuple[float, float], [[1, 2]], [[1], [1, 2, 3]]),
        (dict[str, int], [{"a": 1}], [{"a": "b"}, [1]]),
        (Literal["a", "b"], ["a"], ["c", 1]),
        (Any, [1, "x", math.nan], []),
        (torch.Tensor, [1, "x", [1.5]], []),  # left to the router, as YAML knows no such thing
        (int | torch.Tensor, ["x"], []),
        ("Unresolved", [1], []),
    ],
)
def test_an_option_out_of_yaml_is_of_its_annotated_type(hint, fitting, others):
    assert [registry._fits(value, hint) for value in fitting + others] == [True] * len(fitting) + [False] * len(others)


def test_an_option_that_is_a_dataclass_reaches_the_router_as_one(site):
    site("structured")
    options = {"config": {"sizes": [3, 4]}, "pair": [1, 2]}
    registry.check_options("structured", options)
    router = registry.build("structured", SPEC, options)
    kind = sys.modules["strange_structured"].Config
    assert router.found == (kind([3, 4], None), (1, 2))
    assert registry.build("structured", SPEC).found == (None, (1,))
    for wrong in ({"sizes": ["x"]}, {}, {"sizes": [3], "size": 3}, {"sizes": [3], "scale": "x"}):
        with pytest.raises(ValueError, match=r"router.config=.* is not of the kind that 'structured' takes"):
            registry.check_options("structured", {"config": wrong})


def test_the_wheel_holds_the_template(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name.removeprefix("duo/testing/template/") for name in zipfile.ZipFile(wheel).namelist()}
    written = {str(path.relative_to(TEMPLATE)) for path in TEMPLATE.rglob("*.txt")}
    assert "duo_NAME/router.py.txt" in written
    assert written <= held
