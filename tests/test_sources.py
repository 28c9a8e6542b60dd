import importlib
import sys

import pytest

from duo.routing.source import source_digest


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A plugin of several files."""
    folder = tmp_path / "a_plugin"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("from a_plugin.router import Mine\n")
    (folder / "router.py").write_text("import math\nfrom .inner import helper\nclass Mine: pass\n")
    (folder / "inner" / "__init__.py").write_text("")
    (folder / "inner" / "helper.py").write_text("from a_plugin import deep\n")
    (folder / "deep.py").write_text("X = 1\n")
    (folder / "unused.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield folder
    for name in [name for name in sys.modules if name.startswith("a_plugin")]:
        del sys.modules[name]


def digest():
    return source_digest(importlib.import_module("a_plugin").Mine)


@pytest.mark.parametrize("file", ["router.py", "inner/helper.py", "deep.py"])
def test_a_change_in_what_a_router_is_made_of_changes_its_digest(package, file):
    before = digest()
    assert digest() == before
    (package / file).write_text((package / file).read_text() + "# changed\n")
    assert digest() != before


def test_a_change_elsewhere_does_not(package):
    before = digest()
    (package / "unused.py").write_text("X = 2\n")
    assert digest() == before
