"""The leaderboard as one page that needs nothing but itself: no server, no other file, no network."""

from __future__ import annotations

import importlib
import json
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from string import Template

import msgspec

from duo.leaderboard.board.board import STATUS, Board
from duo.storage.files import replacing

TEMPLATES = Path(__file__).with_suffix("")
SCRIPTS = ("table.js", "panel.js", "plot.js", "page.js")
MARKUP = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"}


def write_page(board: Board, folder: Path) -> Path:
    """Writes `index.html`; the same board and the same version of plotly give the same bytes.

    What submitters wrote is in a block of JSON and nowhere else; the page's script shows it as text, never as markup,
    and the page's policy lets no script run but its own two and no request leave.

    Returns:
        the path of the page.

    Raises:
        ValueError: plotly is not installed.
    """
    ours = "\n".join((TEMPLATES / name).read_text("utf-8") for name in SCRIPTS)
    scripts = {"ours": f'"use strict";\n{ours}', "plotly": _plotly()}
    text = Template((TEMPLATES / "index.html").read_text("utf-8")).substitute(
        scripts,
        policy=_policy([*scripts.values()]),
        style=(TEMPLATES / "page.css").read_text("utf-8"),
        board=_data(board),
    )
    with replacing(folder / "index.html") as temporary:
        temporary.write_text(text, "utf-8", newline="\n")  # the same bytes on Windows
    return folder / "index.html"


def _plotly() -> str:
    try:
        offline = importlib.import_module("plotly.offline")
    except ImportError as error:
        raise ValueError("the page draws with plotly, which is missing: pip install 'duo-llm[leaderboard]'") from error
    return str(offline.get_plotlyjs())


def _policy(scripts: list[str]) -> str:
    """The Content-Security-Policy under which these scripts run, and nothing else."""
    hashes = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return (
        # styles may stand inline, for plotly writes its own
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _data(board: Board) -> str:
    r"""A board as ASCII without `<`, `>` and `&`: no text of a stranger ends the block that it stands in.

    What is no number becomes null.

    >>> _data(Board([], ["</script><b>&"], "")).partition('"left_out": ')[2]
    '["\\u003c/script\\u003e\\u003cb\\u003e\\u0026"], "command": "", "status": ["claimed", "re-executed", "retrained"]}'
    """
    plain = msgspec.to_builtins(board) | {"status": STATUS}
    numbers = json.loads(json.dumps(plain), parse_constant=lambda _: None)
    return json.dumps(numbers, allow_nan=False).translate(MARKUP)
