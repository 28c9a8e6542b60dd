"""README and the pages of docs/: their blocks, their commands, and their links."""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT

from duo import difficulty, generate
from duo.leaderboard.__main__ import SETTINGS
from duo.plan.__main__ import OWN
from duo.recipe import load

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "docs" / "first_router.ipynb", *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "LOG"))]
MARKS = {
    "": "runs as it stands, in the long tests",
    "tests": "CI runs it",
    "minutes": "takes minutes or hours",
    "device": "needs GPUs or a cluster",
    "hub": "needs the hub's network",
    "yours": "needs files of your own",
}
"""What stands in a comment in front of a block that is not run: why."""
STANDINS = {
    "backbone.pretrained=FOLDER": "backbone.small_from=null", "backbone.small_from=big": "seed=0",  # no model is there
    "leaderboard.backbone=DIGEST": "leaderboard.backbone=b1e7", "recipe=my.yaml": "recipe=tiny",
    "recipe=leaderboard/entries/DIGEST/recipe.yaml": "recipe=tiny", "recipe=outputs/RUN/recipe.yaml": "recipe=tiny",
    "recipe=NAME": "recipe=tiny",
}  # fmt: skip
"""What of a reader's own is tried in place of words that stand for it."""


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    mark: str
    kind: str
    text: str


def blocks(page):
    found = re.findall(r"(?:<!-- (\w+) -->\n)?^```([^\n]*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [Block(page.name, *block) for block in found]


def python_block(beginning):
    """The one block of Python on any page that begins so."""
    (text,) = (
        block.text
        for page in PAGES
        for block in blocks(page)
        if block.kind == "python" and block.text.startswith(beginning)
    )
    return text


def commands(text):
    """The lines of a block that call duo, as words behind `python -m`."""
    for line in text.replace("\\\n", " ").splitlines():
        if found := re.search(r"-m (duo\.[\w.]+.*)", line):
            yield shlex.split(found[1])


def named_commands(page):
    """The commands in blocks, and those that are named in sentences and tables."""
    text = page.read_text()
    for block in blocks(page):
        if block.kind == "bash":
            yield from commands(block.text)
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for found in re.findall(r"`([^`]*python -m duo\.[^`]*)`", outside):
        yield from commands(found)


def main_of(module):
    """What runs when one types `python -m module`."""
    found = import_module(module)
    return found if hasattr(found, "main") else import_module(f"{module}.__main__")


def understand(words):
    """Raises where a command's recipe, settings or arguments do not exist; runs nothing."""
    module, *given = [STANDINS.get(word, word.replace("=my_router", "=softmax_budget")) for word in words]
    command = main_of(module)
    settings = [word for word in given if not word.startswith("-") and "=" in word]
    if not given or "--help" in given:
        return
    if module == "duo.run":
        _load(settings)
    elif module == "duo.plan":
        _load([word for word in settings if word.startswith("recipe=") or word.partition("=")[0] not in OWN])
    elif module in ("duo.generate", "duo.difficulty"):
        places = [word for word in given if word not in settings]
        request = (generate if module == "duo.generate" else difficulty).parse(*places or [None], settings)
        if request.recipe:
            load(request.recipe, request.settings)
    elif hasattr(command, "parser"):
        command.parser().parse_args([word for word in given if not word.startswith(SETTINGS)])
    elif module == "duo.convert":
        assert {word for word in given if word.startswith("--")} <= {"--routed"}


def _load(settings):
    (name,) = (word.removeprefix("recipe=") for word in settings if word.startswith("recipe="))
    load(name, [word for word in settings if not word.startswith("recipe=")])


def words_of(page):
    """A page's text without code, in which brackets are no links."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)


def broken_links(page):
    """Links of a page to files or headings that are not there."""
    for link in re.findall(r"\]\(([^)\s]+)\)", words_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


def anchors(page: Path):
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
