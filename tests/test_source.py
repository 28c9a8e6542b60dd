"""A router's digest: it changes with what runs, and with nothing else."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
from textwrap import dedent

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from duo import Router
from duo.routing import source
from duo.routing.source import module_digest, source_digest
from routers.softmax_budget import SoftmaxBudget

FILES = {
    "__init__.py": "UNUSED = 1\n",
    "router.py": '''
        """A plugin's router."""

        import dataclasses
        import math
        from typing import TYPE_CHECKING, NamedTuple

        import a_plugin.far.away
        from a_plugin import deep
        from a_plugin.taken import Taken

        from .bases import Base

        if TYPE_CHECKING:
            from a_plugin import types_alone


        @dataclasses.dataclass(frozen=True)
        class Options:
            first: int
            second: float = 1.0


        class Pair(NamedTuple):
            left: int
            right: int


        class Empty(Base):
            pass


        class Mine(Base):
            """A router."""

            heads: list

            def route(self, trial, sharpness=20.0, rest=(1, 2)):
                """Routes."""
                from . import late

                scale: float = late.SCALE * deep.DEPTH
                assert isinstance(Taken, type)
                return math.floor(scale * sharpness) + a_plugin.far.away.rounded(rest[0]), "big"

            @property
            def name(self):
                return "mine"
    ''',
    "bases.py": "class Far: pass\nclass Base(Far):\n    layers = 3\n",
    "deep.py": "DEPTH = 4\n",
    "late.py": "from a_plugin.router import Mine\nSCALE = 10.0\n",  # a cycle
    "far/__init__.py": "UNUSED = 1\n",
    "far/away.py": "from ..far import below\n\ndef rounded(x):\n    return round(x) + below.X\n",
    "far/below.py": "X = 1\n",
    "taken/__init__.py": "from ._inner import Taken\n",
    "taken/_inner.py": "class Taken: pass\n",
    "taken/beside.py": "X = 1\n",
    "types_alone.py": "X = 1\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the plugin lies, as it is installed."""
    with pytest.MonkeyPatch.context() as patch:
        at = tmp_path_factory.mktemp("site") / "a_plugin"
        write(at)
        patch.syspath_prepend(at.parent)
        yield at
        for name in [name for name in sys.modules if name.partition(".")[0] == "a_plugin"]:
            del sys.modules[name]


@pytest.fixture
def package(folder):
    """The plugin, whose files a test may change."""
    yield folder
    write(folder)


def write(folder):
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(text))


def digest():
    return source_digest(importlib.import_module("a_plugin.router").Mine)


def changed(package, file, old, new):
    """Whether another text in a file, or one added at its end (`old` is empty), changes the digest."""
    before, text = digest(), (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new) if old else text + new)
    return digest() != before


SAME = {
    "a comment": ("", "# a comment\n"),
    "a comment in a line": ("assert isinstance(Taken, type)", "assert isinstance(Taken, type)  # surely"),
    "a module's docstring": ('"""A plugin\'s router."""', '"""Another."""'),
    "a class's docstring": ('    """A router."""\n', ""),
    "a function's docstring": ('"""Routes."""', '"""Routes.\n\n        At length.\n        """'),
    "an attribute's docstring": ("first: int", 'first: int\n    """The first."""'),
    "a docstring where nothing stood": ("Empty(Base):\n    pass", 'Empty(Base):\n    """Empty."""'),
    "quotes": ('"big"', "'big'"),
    "a string in parts": ('"mine"', '"mi" "ne"'),
    "a prefix": ('"mine"', 'u"mine"'),
    "line breaks and a trailing comma": ("rest=(1, 2)):", "rest=(\n    1,\n    2,\n),\n):"),
    "parentheses": ("scale * sharpness", "((scale) * sharpness)"),
    "the spelling of a number": ("20.0", "2_0.00"),
    "an argument's annotation": ("sharpness=20.0", "sharpness: float = 20.0"),
    "the annotation of a result": ("def name(self):", "def name(self) -> str:"),
    "a variable's annotation": ("scale: float =", "scale ="),
    "an attribute's annotation": ("    heads: list\n", ""),
    "a field's type": ("second: float", "second: 'int | None'"),
    "what type checkers alone import": ("import types_alone", "import types_alone as others"),
}
OTHER = {
    "a constant": ("20.0", "21.0"),
    "a string": ('"big"', '"small"'),
    "the kind of a constant": ("rest=(1, 2)", "rest=(True, 2)"),
    "a default": ("trial, sharpness", "trial=None, sharpness"),
    "the order of operations": ("late.SCALE * deep.DEPTH", "deep.DEPTH * late.SCALE"),
    "a base class": ("class Mine(Base)", "class Mine(Base, dict)"),
    "a decorator": ("    @property\n", ""),
    "a decorator's option": ("frozen=True", "frozen=False"),
    "a method": ("", "\n    def loss(self, trial):\n        return 0\n"),
    "a field's name": ("first: int", "initial: int"),
    "the order of fields": ("left: int\n    right: int", "right: int\n    left: int"),
    "a field that becomes an attribute": ("second: float = 1.0", "second = 1.0"),
    "a field that becomes the class's": ("second: float", "second: ClassVar[float]"),
    "what runs but for type checkers": ("if TYPE_CHECKING:", "if not TYPE_CHECKING:"),
    "an assertion that is gone": ("        assert isinstance(Taken, type)\n", ""),
}


@pytest.mark.parametrize("what", SAME)
def test_what_does_not_run_changes_nothing(package, what):
    assert not changed(package, "router.py", *SAME[what])


@pytest.mark.parametrize("what", OTHER)
def test_what_runs_does(package, what):
    assert changed(package, "router.py", *OTHER[what])


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("bases.py", "layers = 3", "layers = 4"),
        ("bases.py", "Base(Far)", "Base"),
        ("deep.py", "4", "5"),  # from a_plugin import deep
        ("late.py", "10.0", "11.0"),  # imported inside a function
        ("far/away.py", "round(x)", "int(x)"),  # import a_plugin.far.away
        ("far/below.py", "1", "2"),  # from ..far import below
        ("taken/__init__.py", "", "X = 1\n"),  # from a_plugin.taken import Taken
        ("taken/_inner.py", "pass", "x = 1"),  # what that is made of
    ],
)
def test_so_does_what_runs_elsewhere_in_the_package(package, file, old, new):
    assert changed(package, file, old, new)
    assert not changed(package, file, "", "# a comment\n")


@pytest.mark.parametrize("file", ["__init__.py", "far/__init__.py", "taken/beside.py", "types_alone.py"])
def test_what_a_router_does_not_use_changes_nothing_though_it_be_on_the_way(package, file):
    assert not changed(package, file, "1", "2")


@pytest.mark.parametrize(
    "line",
    [
        "from a_plugin import UNUSED",
        "from . import UNUSED",
        "from a_plugin import *",
        "import a_plugin",
        "import a_plugin.deep; print(a_plugin.UNUSED)",
    ],
)
def test_a_packages_init_counts_once_something_is_taken_from_it(package, line):
    assert changed(package, "router.py", "", f"\n{line}\n")
    assert changed(package, "__init__.py", "1", "2")
    assert not changed(package, "far/__init__.py", "1", "2")


@pytest.mark.parametrize("line", ["import a_plugin.deep; print(a_plugin.deep.DEPTH)", "import a_plugin.deep as other"])
def test_an_init_that_is_passed_by_does_not(package, line):
    assert changed(package, "router.py", "", f"\n{line}\n")
    assert not changed(package, "__init__.py", "1", "2")


def test_looking_for_modules_imports_none(package):
    (package / "late.py").write_text("from a_plugin.raising.inner import X\n")
    (package / "raising").mkdir()
    (package / "raising" / "__init__.py").write_text("1 / 0\n")
    (package / "raising" / "inner.py").write_text("X = 1\n")
    importlib.invalidate_caches()
    assert changed(package, "raising/inner.py", "1", "2")
    shutil.rmtree(package / "raising")


def test_what_is_missing_or_no_python_is_left_out(package):
    (package / "data.txt").write_text("1")
    line = "\ntry:\n    from a_plugin.missing.inner import x\nexcept ImportError:\n    from . import missing\n"
    assert changed(package, "router.py", "", line)
    assert not changed(package, "data.txt", "1", "2")


def test_where_a_plugin_is_installed_changes_nothing(package, tmp_path):
    shutil.copytree(package, tmp_path / "a_plugin")
    asked = "from a_plugin.router import Mine; from duo.routing.source import source_digest; print(source_digest(Mine))"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    found = subprocess.run(
        [sys.executable, "-c", asked], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == digest()


def test_duo_is_no_part_of_a_router_but_its_own_modules_can_be_asked_for():
    kind = type("Mine", (Router,), {"__module__": "routers.random"})
    assert source_digest(kind) == module_digest("routers.random")
    assert module_digest("duo.evaluation.evaluate") != module_digest("duo.evaluation.score")


def test_a_parent_of_another_package_is_part_of_a_router(package):
    kind = type("Mine", (SoftmaxBudget,), {"__module__": "a_plugin.deep"})
    assert source_digest(kind) == module_digest("a_plugin.deep", "routers.softmax_budget")


def test_a_tree_is_told_without_places_and_empty_fields_in_which_versions_of_python_differ():
    target = ["Name", {"id": "'x'", "ctx": ["Store", {}]}]
    assert running("x = 1") == [
        "Module",
        {"body": [["Assign", {"targets": [target], "value": ["Constant", {"value": "1"}]}]]},
    ]


LINES = dedent(FILES["router.py"]).strip().splitlines()[2:]  # no line is within a string


@given(st.lists(st.tuples(st.integers(0, len(LINES) - 1), st.sampled_from(["\n", "  # said", "  # 'said\n\n#"]))))
def test_comments_and_blank_lines_anywhere_change_nothing(added):
    lines = [*LINES]
    for index, text in added:
        lines[index] += text
    assert running("\n".join(lines)) == running("\n".join(LINES))


@pytest.mark.parametrize("path", sorted((ROOT / "routers").rglob("*.py")), ids=lambda path: path.name)
def test_a_shipped_router_written_anew_without_comments_is_the_same(path):
    text = path.read_text()
    assert running(ast.unparse(ast.parse(text))) == running(text)


def running(text):
    return source._plain(source._Running().visit(ast.parse(text)))
