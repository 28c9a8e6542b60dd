"""What kind of thing each token of a text is, in prose and in code."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

CATEGORIES = ("word", "keyword", "number", "operator", "punctuation", "whitespace")
"""Each token has one: that of its first character that is no white space.

word         a word, in code an identifier, or part of one; and what it is part of decides: `def` in `default`
keyword      one of Python's, in code alone, also where it stands in a string or a comment; `for` in prose is a word
number       a word that begins with a digit, or part of one
operator     mathematical symbols; in code also the other signs that Python calculates and compares with
punctuation  all other signs
whitespace   nothing but white space
"""
FACTS = ("starts a line", "starts a word", "goes on with a word")
"""What may be true of a token besides: it holds the first character of its line that is no white space; of a word; it
holds characters of a word, but not its first one."""

WORD = re.compile(r"\w+(?:['’]\w+)*")  # in prose what stands behind an apostrophe belongs to the word
IDENTIFIER = re.compile(r"\w+")
LINE_START = re.compile(r"^[^\S\n]*(\S)", re.MULTILINE)
SIGNS = frozenset("-*/%!&^@")  # that only code means as operators; +, <, =, >, | and ~ are mathematical
STATEMENT = re.compile(r"[^\S\n]*(?:def \w+\(.*|class \w+.*:|import [\w.]+(?: as \w+)?|from [\w.]+ import .+)\s*")
SPACE = re.compile(r"\s")
LOOKED_AT = 1 << 17  # characters that tell whether a text is code
CODE, PROSE = (".py", ".pyi"), (".md", ".rst", ".txt")  # endings of names
PROSE_LINES = 50  # among which one statement makes no code


class Labels(NamedTuple):
    """What is known of each token of a text."""

    category_N: np.ndarray
    """Its place in CATEGORIES."""
    facts: dict[str, np.ndarray]
    """Of which tokens each of FACTS is true, (N,)."""


def label(byte_N: Sequence[bytes], text: str, python: bool) -> Labels:
    """The category and the facts of every token.

    A token that is part of a character is what the character is.

    Args:
        byte_N: the bytes of each token; together the beginning of the text.
        text: all of it: what a word is depends on how it goes on.
        python: whether it is code.
    """
    spans = [*_spans(byte_N, text)]
    # a word at the end of what is shown goes on up to the next white space
    behind = SPACE.search(text, spans[-1][1]) if spans else None
    found = _Characters(text[: behind.start() if behind else None], python)
    category_N = np.array([found.category(start, end) for start, end in spans])
    true_by_token = np.array([found.facts(start, end) for start, end in spans])
    return Labels(category_N, dict(zip(FACTS, true_by_token.T, strict=True)))


def is_python(text: str, name: str = "") -> bool:
    r"""Whether a text is taken for Python: by its name's ending, else by a statement in 50 lines that no prose has.

    >>> is_python("import os\n\nos.getcwd()\n"), is_python("I import tea.\nFor what?\n"), is_python("", "a.py")
    (True, False, True)
    """
    lines = [line[:200] for line in text[:LOOKED_AT].splitlines() if line.strip()]
    statements = sum(map(bool, map(STATEMENT.fullmatch, lines)))
    return name.endswith(CODE) or (not name.endswith(PROSE) and statements > len(lines) // PROSE_LINES)


class _Characters:
    """A text's words by character."""

    def __init__(self, text: str, python: bool) -> None:
        self._text, self._python = text, python
        self._words: dict[int, tuple[int, str]] = {}  # a character's place to its word's beginning and kind
        for match in (IDENTIFIER if python else WORD).finditer(text):
            word = (match.start(), self._kind(match[0]))
            self._words |= dict.fromkeys(range(*match.span()), word)
        self._line_starts = {match.start(1) for match in LINE_START.finditer(text)}

    def category(self, start: int, end: int) -> int:
        """That of the characters from `start` to before `end`."""
        visible = next((place for place in range(start, end) if not self._text[place].isspace()), None)
        if visible is None:
            return CATEGORIES.index("whitespace")
        if visible in self._words:
            return CATEGORIES.index(self._words[visible][1])
        sign = self._text[visible]
        operator = unicodedata.category(sign) == "Sm" or (self._python and sign in SIGNS)
        return CATEGORIES.index("operator" if operator else "punctuation")

    def facts(self, start: int, end: int) -> list[bool]:
        """Which of FACTS are true of the characters from `start` to before `end`."""
        of_words = [place for place in range(start, end) if place in self._words]
        starts_word = any(self._words[place][0] == place for place in of_words)
        starts_line = any(place in self._line_starts for place in range(start, end))
        return [starts_line, starts_word, bool(of_words) and not starts_word]

    def _kind(self, word: str) -> str:
        if word[0].isdigit():
            return "number"
        return "keyword" if self._python and keyword.iskeyword(word) else "word"


def _spans(byte_N: Sequence[bytes], text: str) -> Iterator[tuple[int, int]]:
    """The characters from which to before which each token reaches; those it holds in part too."""
    places = _character_at(text, sum(map(len, byte_N)))
    start = 0
    for token in byte_N:
        end = start + len(token)
        yield places(start), (places(end - 1) + 1 if token else places(start))
        start = end


def _character_at(text: str, most: int) -> Callable[[int], int]:
    """Which character a byte belongs to, for the text's first `most` bytes and the one behind them."""
    lengths = np.array([len(sign.encode()) for sign in text[: most + 1]], dtype=np.int64)
    ends = lengths.cumsum()
    return lambda byte: int(np.searchsorted(ends, byte, side="right"))
