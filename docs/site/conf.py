"""How `make docs` builds the site: README, the pages of docs/ and a page of reference for each module, with Sphinx.

The root of the repository is Sphinx's source, so that a link from one file to another is the same on the site and where
the repository is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.addnodes import toctree
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
NAVIGATION = {
    "Begin": ["start", "concepts", "first_router", "routers", "questions"],
    "Use": ["recipes", "compare", "leaderboard", "data", "models", "inference", "difficulty", "sweep"],
    "Grow": ["scale", "knobs", "devices", "paper"],
    "Look up": ["measured", "results", "cache", "support", "upgrading", "tree", "api"],
    "The project": ["../CONTRIBUTING", "../LEADERBOARD", "../LOG", "../CHANGELOG"],
}
"""The pages by what one wants, in order; one that is not there is left out."""

project = "duo"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/*.ipynb", "docs/api/*"]
exclude_patterns = [".venv", "build", "cache", "outputs"]
templates_path = ["templates"]
suppress_warnings = [
    "ref.python",  # a type's name alone may be that of several classes
    "toc.not_included",  # modules, see keep_navigation_short
]

myst_heading_anchors = 3

default_role = "code"  # what docstrings write between single backticks
highlight_language = "none"  # of what names none: legends and lists of files
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}

html_theme = "furo"
html_title = "duo"
html_copy_source = False
html_show_sphinx = False


def add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    """Puts the pages into README's place in the site, which holds no words of Sphinx's."""
    if name != root_doc:
        return
    for caption, pages in NAVIGATION.items():
        paths = [page[3:] if page.startswith("../") else f"docs/{page}" for page in pages]
        found = [path for path in paths if any((ROOT / f"{path}{end}").exists() for end in (".md", ".ipynb"))]
        source[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *found, "```", ""])


def keep_layout(app: Sphinx, what: str, name: str, item: object, options: Any, lines: list[str]) -> None:
    """Indented blocks in a module's docstring, lists of files and legends, are shown as they are written."""
    if what == "module":
        for at in reversed(range(1, len(lines))):
            if lines[at].startswith("    ") and not lines[at - 1] and not lines[at - 2].startswith("    "):
                lines[at:at] = ["::", ""]


def keep_navigation_short(app: Sphinx, page: nodes.document) -> None:
    """Shows packages beside every page, and their modules on the packages' own pages: hundreds would take minutes."""
    if app.env.docname.startswith("docs/api/duo."):
        for modules in [*page.findall(toctree)]:
            modules.parent.remove(modules)


class Notebook(MystParser):
    """A notebook as a page: its text, its code, and what the code printed."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parses the notebook's JSON as the Markdown that it stands for."""
        super().parse("\n\n".join(map(_markdown, json.loads(inputstring)["cells"])), document)


def _markdown(cell: dict[str, Any]) -> str:
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return text
    printed = "".join(line for output in cell["outputs"] for line in output.get("text", ()))
    return f"```python\n{text}\n```" + (f"\n\n```text\n{printed}```" if printed else "")


def setup(app: Sphinx) -> None:
    """Tells Sphinx of all that."""
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(Notebook)
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", keep_layout)
    app.connect("doctree-read", keep_navigation_short, priority=400)  # before Sphinx collects them
