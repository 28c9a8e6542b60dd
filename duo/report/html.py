"""Pages that need nothing but themselves: no server, no other file, no network."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from string import Template
from typing import Any

from duo.storage.files import replacing

MARKUP = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"}


def write_html(path: Path, templates: Path, ours: Sequence[str], data: Any, others: Mapping[str, str]) -> None:
    """Writes a page of its `index.html`, its `page.css`, its scripts and its data.

    Whatever people wrote is in the data, a block of JSON, and nowhere else: the page's scripts show it as text, never
    as markup, and the page's policy lets no script run but its own and no request leave.

    Args:
        path: of the page.
        templates: folder of what it is made of.
        ours: files there that make up its own script, which stands as `$ours`; the data stand as `$data`.
        data: plain data.
        others: further scripts, by the name they stand under.
    """
    joined = "\n".join((templates / name).read_text("utf-8") for name in ours)
    scripts = {"ours": f'"use strict";\n{joined}', **others}
    text = Template((templates / "index.html").read_text("utf-8")).substitute(
        scripts,
        policy=_policy([*scripts.values()]),
        style=(templates / "page.css").read_text("utf-8"),
        data=json_block(data),
    )
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8", newline="\n")  # the same bytes on Windows


def json_block(plain: Any) -> str:
    r"""Plain data as ASCII without `<`, `>` and `&`: no text of a stranger ends the block that it stands in.

    What is no number becomes null.

    >>> json_block(["</script><b>&", float("nan")])
    '["\\u003c/script\\u003e\\u003cb\\u003e\\u0026", null]'
    """
    numbers = json.loads(json.dumps(plain), parse_constant=lambda _: None)
    return json.dumps(numbers, allow_nan=False).translate(MARKUP)


def _policy(scripts: Sequence[str]) -> str:
    """The Content-Security-Policy under which these scripts run, and nothing else."""
    hashes = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return (
        # styles may stand inline, for plotly writes its own
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
