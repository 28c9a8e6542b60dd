"""Excerpts of many documents, which hold-outs and calibration sets are made of; a sequence lies within one of them."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from tokenizers import Tokenizer

from duo.data.token_text import spells_text
from duo.data.tokens import TOKEN, Packed, encode

KEPT = 1 << 22  # tokens of a split, at most, that are kept rather than made twice: 32 MB


def take_excerpts(
    tokenizer: Tokenizer, documents: Callable[[], Iterable[str]], length: int, wanted: int, each: int, join: bool
) -> Iterator[Packed]:
    """Sequences of `length` tokens from as many documents as it takes, numbered in order.

    Of a document, `each` sequences at most are taken, evenly spaced; more where all documents together hold too few.

    Args:
        documents: gives the documents, the same ones each time.
        wanted: sequences in all; 0: all that there are.
        each: most sequences of a document, as long as there are documents enough.
        join: whether documents shorter than a sequence are put together, and count as one document then; else they
            are left out.
    """
    spelled = spells_text(tokenizer)
    if not wanted:
        return _cut(_units(tokenizer, documents(), length, join), length, None, spelled)
    held, units = _read_until(_units(tokenizer, documents(), length, join), length, wanted, each)
    most: int | None = each
    if sum(min(rows, each) for rows in held) < wanted:
        most = _raise_limit(held, wanted)
    if units is None:
        units = itertools.islice(_units(tokenizer, documents(), length, join), len(held))
    return itertools.islice(_cut(units, length, most, spelled), wanted)


def spread_rows(document_N: np.ndarray) -> np.ndarray:
    """The rows of a split, one of every document before a second one of any.

    >>> spread_rows(np.array([0, 0, 0, 1, 2, 2])).tolist()
    [0, 3, 4, 1, 5, 2]
    """
    _, first_D, at_N, count_D = np.unique(document_N, return_index=True, return_inverse=True, return_counts=True)
    # each document begins at another of its sequences: not all at the beginning, which is alike in many documents
    place_N = (np.arange(len(document_N)) - first_D[at_N] - at_N) % count_D[at_N]
    return np.lexsort((at_N, place_N))


def subset_rows(document_N: np.ndarray, wanted: int) -> np.ndarray:
    """The sequences of a hold-out that searches are scored on, in order: of as many documents as possible.

    >>> subset_rows(np.array([0, 0, 0, 1, 2, 2]), 4).tolist()
    [0, 1, 3, 4]
    """
    return np.sort(spread_rows(document_N)[:wanted])


def _units(tokenizer: Tokenizer, documents: Iterable[str], length: int, join: bool) -> Iterator[np.ndarray]:
    """The tokens of every document that fills a sequence, as `TOKEN`; short ones joined, or left out."""
    short = np.empty(0, dtype=TOKEN)
    for text in documents:
        tokens = np.concatenate([*encode(tokenizer, [text])])
        if len(tokens) >= length:
            yield tokens
        elif join:
            short = np.concatenate([short, tokens])
            if len(short) >= length:
                yield short
                short = short[:0]


def _read_until(
    units: Iterable[np.ndarray], length: int, wanted: int, each: int
) -> tuple[list[int], Iterable[np.ndarray] | None]:
    """Sequences that the first documents hold, until they are enough; and their tokens, unless they are too many."""
    held: list[int] = []
    kept: list[np.ndarray] | None = []
    tokens, left = 0, wanted
    for unit in units:
        held.append(len(unit) // length)
        tokens, left = tokens + len(unit), left - min(held[-1], each)
        if kept is not None:
            kept.append(unit)
            kept = kept if tokens <= KEPT else None
        if left <= 0:
            break
    return held, kept


def _cut(units: Iterable[np.ndarray], length: int, most: int | None, spelled: bool) -> Iterator[Packed]:
    """Evenly spaced sequences of numbered documents."""
    numbered = ((number, row) for number, unit in enumerate(units) for row in _spread(unit, length, most))
    return (Packed.of(row, number, spelled) for number, row in numbered)


def _raise_limit(held: list[int], wanted: int) -> int | None:
    """The smallest number of sequences from each document with which they give what is wanted; None: they cannot."""
    limits = range(max(held, default=0) + 1)
    most = bisect.bisect_left(limits, wanted, key=lambda most: sum(min(rows, most) for rows in held))
    return most if most < len(limits) else None


def _spread(tokens: np.ndarray, length: int, most: int | None) -> np.ndarray:
    """Evenly spaced sequences of a document, (N, length)."""
    held = len(tokens) // length
    taken = held if most is None else min(held, most)
    at = (2 * np.arange(taken) + 1) * held // (2 * taken)  # the middles of equal parts
    return tokens[: held * length].reshape(held, length)[at]
