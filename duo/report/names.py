"""Names of the user's choice (of rows, hold-outs, recipes) as they can be shown: on one line, and not too long."""

from __future__ import annotations

MOST = 48  # characters: a longer name would leave a table or a figure no room for numbers


def name_part(holdout: str, group: str) -> str:
    """A hold-out, and the group of a comparison, if it has several."""
    return printable(holdout) + (f", {printable(group, 120)}" if group else "")


def printable(name: str, most: int = MOST) -> str:
    r"""A name in which what cannot be seen, or would move what stands beside it, is written as Python writes it.

    >>> printable("naïve"), printable("two\nlines"), printable("a" * 60)
    ('naïve', 'two\\nlines', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaa')

    Args:
        most: characters at most; of a longer name the middle is left out, for names often differ at their ends.
    """
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in name
    )
    end = (most - 3) // 3
    return shown if len(shown) <= most else f"{shown[: most - 3 - end]}...{shown[-end:]}"
