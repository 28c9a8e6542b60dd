"""Tables and sentences as Markdown and CSV: what a user's names hold is shown, and does nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table


def to_markdown(parts: Iterable[Table | str]) -> str:
    """Tables, each under its title, and sentences in between."""
    return "\n\n".join("\n".join(_table(part)) if isinstance(part, Table) else escape(part) for part in parts) + "\n"


def _table(view: Table) -> Iterator[str]:
    yield from (f"**{escape(str(view.title))}**", "")
    yield row([escape(str(column.header)) for column in view.columns])
    yield row(["---:" if column.justify == "right" else "---" for column in view.columns])
    for cells in zip(*(column.cells for column in view.columns), strict=True):
        yield row([escape(str(cell)) for cell in cells])


def row(cells: Sequence[str]) -> str:
    """One line of a table; what its cells hold is escaped already."""
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no link, no other cell."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = "".join(f"\\{sign}" if sign in "\\`*_[]#!|~$@" else sign for sign in text).replace("www.", "www\\.")
    return re.sub(r":(?=\S)|(?<=\])\(", r"\\\g<0>", text)  # of an address, a link or a sign that stands for a picture


def harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.lstrip()[:1] in ("=", "@", "+", "-") or text[:1].isspace() else text
