"""The leaderboard as one page."""

from __future__ import annotations

import importlib
from pathlib import Path

import msgspec

from duo.leaderboard.board.board import STATUS, Board
from duo.report.html import write_html

TEMPLATES = Path(__file__).with_suffix("")
SCRIPTS = ("table.js", "panel.js", "plot.js", "page.js")


def write_page(board: Board, folder: Path) -> Path:
    """Writes `index.html`; the same board and the same version of plotly give the same bytes.

    Returns:
        the path of the page.

    Raises:
        ValueError: plotly is not installed.
    """
    data = msgspec.to_builtins(board) | {"status": STATUS}
    write_html(folder / "index.html", TEMPLATES, SCRIPTS, data, {"plotly": _plotly()})
    return folder / "index.html"


def _plotly() -> str:
    try:
        offline = importlib.import_module("plotly.offline")
    except ImportError as error:
        raise ValueError("the page draws with plotly, which is missing: pip install 'duo-llm[leaderboard]'") from error
    return str(offline.get_plotlyjs())
