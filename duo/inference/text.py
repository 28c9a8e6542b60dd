"""The bytes of tokens as text: whole characters, up to a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Text:
    """The text of tokens as they come; a token's text is given once nothing can take it back.

    A character belongs to the token that completes it. Bytes that are no UTF-8 become the replacement character.

    Args:
        stop: strings at whose first occurrence the text ends, in front of it.

    >>> text = Text(stop=["##"])
    >>> text.add("é".encode()[:1]), text.add("é".encode()[1:]), text.add(b"a#"), text.add(b"b##c")
    ([''], ['é'], [], ['a#', 'b'])
    >>> text.stopped
    True
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held: list[str] = []  # the texts of tokens that were not given yet

    def add(self, piece: bytes, last: bool = False) -> list[str]:
        """The texts that are certain now, one for each token that was not given yet, oldest first.

        Args:
            piece: the bytes of the next token.
            last: whether no other comes behind it: then all texts are given.
        """
        self._held.append(self._decoder.decode(piece, final=last))
        text = "".join(self._held)
        if ends := [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]:
            self.stopped = True
            return self._cut(min(ends)[1])  # which ends first, whatever the tokens were
        if last:
            return self._give(len(self._held))
        certain, tokens = len(text) - self._beginning(text), 0
        for held in self._held:
            certain -= len(held)
            if certain < 0:
                break
            tokens += 1
        return self._give(tokens)

    def _beginning(self, text: str) -> int:
        """Characters at the end of the text that may become a stop string."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stop):
                return size
        return 0

    def _cut(self, left: int) -> list[str]:
        """All texts, of which so many characters are left."""
        given = []
        for held in self._give(len(self._held)):
            given.append(held[:left])
            left -= len(given[-1])
        return given

    def _give(self, tokens: int) -> list[str]:
        given, self._held = self._held[:tokens], self._held[tokens:]
        return given
