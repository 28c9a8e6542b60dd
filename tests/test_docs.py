"""What README and the pages of docs/ tell one to type works, or says why it is not tried; links lead somewhere."""

import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from pages import LINKED, MARKS, PAGES, blocks, broken_links, commands, main_of, named_commands, understand

from duo.recipe import load, recipes

NOTEBOOK = ROOT / "docs" / "first_router.ipynb"
WALKED = ["start.md", *(page.name for page in PAGES if page.name != "start.md")]  # whose run the others read


def test_every_block_of_commands_runs_or_says_why_not():
    for page in PAGES:
        for block in blocks(page):
            assert block.mark in MARKS, f"{block.page}: <!-- {block.mark} -->"
            if block.kind == "bash" and not block.mark:
                lines = block.text.replace("\\\n", " ").splitlines()
                assert all(line.startswith("python -m duo.") for line in lines), block.text


def test_every_command_names_recipes_settings_and_arguments_that_exist():
    for words in {tuple(words): None for page in PAGES for words in named_commands(page)}:
        try:
            understand(words)
        except (Exception, SystemExit) as error:
            pytest.fail(f"{' '.join(words)}: {error!r}")


@pytest.mark.parametrize(
    "line",
    [
        "duo.run recipe=nix", "duo.run recipe=tiny nix=1", "duo.generate recipe=tiny nix=1",
        "duo.plan recipe=tiny nix=1", "duo.cache nix", "duo.leaderboard show --nix",
        "duo.convert first plain --nix", "duo.nix",
    ],
)  # fmt: skip
def test_a_command_that_does_not_exist_is_noticed(line):
    (words,) = commands(f"python -m {line}")
    with pytest.raises((Exception, SystemExit)):
        understand(words)


def test_every_page_has_its_place_in_the_site():
    navigation = (ROOT / "docs" / "site" / "conf.py").read_text()
    assert [page.name for page in PAGES if page.name != "README.md" and f'"{page.stem}"' not in navigation] == []


def test_the_page_of_recipes_names_every_recipe():
    words = {*re.findall(r"`(?:[^`]*recipe=)?([\w/]+)[^`]*`", (ROOT / "docs" / "recipes.md").read_text())}
    assert {*recipes()} - words == {"mixture"}  # a base of others


def test_recipes_on_the_pages_are_recipes(tmp_path):
    texts = [block.text for page in PAGES for block in blocks(page) if block.kind == "yaml"]
    for text in texts:
        (tmp_path / "mine.yaml").write_text(text.replace("my_router", "softmax_budget"))
        assert load(str(tmp_path / "mine.yaml")).compare.names
    assert texts


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_or_a_heading(page):
    assert [*broken_links(page)] == []


def test_a_broken_link_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One head\n\n[a](#one-head) [b](page.md#two) [c](nix.md) [d](https://example.org/nix) `[e](nix)`\n"
    )
    assert [*broken_links(page)] == ["page.md#two", "nix.md"]


def test_the_notebook_is_small_and_shows_what_it_printed():
    assert NOTEBOOK.stat().st_size < 30_000
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        assert bool(cell["outputs"]) == ("print(" in "".join(cell["source"]))
        assert {output["output_type"] for output in cell["outputs"]} <= {"stream"}


@pytest.mark.long
def test_the_notebook_runs(tmp_path):
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "failed: []" in done.stdout
    assert len(re.findall(r"^(?:text|code) .* minus random [+-]", done.stdout, re.MULTILINE)) == 6
    routes = {*re.findall(r"nats   ((?:[.sB] ?)+)$", done.stdout, re.MULTILINE)}
    assert len(routes) > 1  # it looks at tokens


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder to type in, with a cache of its own."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "README.md").write_text((ROOT / "README.md").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


@pytest.mark.long
@pytest.mark.parametrize("name", WALKED)
def test_what_a_page_says_to_type_ends_well(checkout, capsys, name):
    (page,) = (page for page in PAGES if page.name == name)
    for block in blocks(page):
        if block.kind == "bash" and not block.mark:
            for module, *arguments in commands(block.text):
                assert main_of(module).main(arguments) == 0, f"{module} {arguments}: {capsys.readouterr()}"
