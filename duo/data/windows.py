"""One text of any length: its tokens, the bytes that they stand for, and the windows in which a model reads them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from duo.data.batch import Batch, sequence_ids
from duo.data.token_text import bytes_taken, token_texts
from duo.data.tokenizer import parts, tokenizer_digest

SPLIT = "text"


class Tokens(NamedTuple):
    """The tokens of a text from its beginning on."""

    id_N: np.ndarray
    byte_N: list[bytes]
    """The bytes that each token stands for; one after another they are the beginning of the text, in UTF-8."""
    whole: bool
    """Whether they are all of the text's tokens."""


class Windows(NamedTuple):
    """Where a text is read: in windows of T tokens that overlap by half, the last one moved back to end with it."""

    start_B: np.ndarray
    """Token that each window begins with."""
    window_N: np.ndarray
    """Of every token but the first, which nothing predicts: the window in which most tokens stand in front of it."""
    place_N: np.ndarray
    """Its label's place in that window; so many tokens and one more stand in front of it."""


def tokenize(tokenizer: Tokenizer, text: str, most: int | None = None) -> Tokens:
    """The text's first tokens, at most so many (None: all); of what lies behind them, little is read."""
    byte_V, found = token_texts(tokenizer), list[int]()
    byte_N = list[bytes]()
    for piece in parts(tokenizer, text):
        if most is not None and len(found) > most:  # one more says whether there are more
            break
        encoding = tokenizer.encode(piece, add_special_tokens=False)
        found += encoding.ids
        spelled = [byte_V[token] for token in encoding.ids]
        if b"".join(spelled) != piece.encode():  # the tokenizer changes texts: then the places say what a token takes
            ends = np.cumsum(bytes_taken(piece, encoding)).tolist()
            spelled = [piece.encode()[start:end] for start, end in zip([0, *ends][: len(ends)], ends, strict=True)]
        byte_N += spelled
    kept = found[:most]
    return Tokens(np.array(kept, dtype=np.int64), byte_N[: len(kept)], whole=len(kept) == len(found))


def cut(tokens: Tokens, length: int, name: str = "the text") -> Windows:
    """The windows in which a text is read; raises ValueError where it has nothing to score."""
    if len(tokens.id_N) < 2:
        raise ValueError(f"{name} has {len(tokens.id_N)} token: the first one is never scored, give more")
    return windows_of(len(tokens.id_N), length)


def windows_of(tokens: int, length: int) -> Windows:
    """The windows of at most `length` tokens in which so many tokens (2 or more) are read.

    >>> windows = windows_of(tokens=8, length=4)
    >>> windows.start_B.tolist(), windows.window_N.tolist(), windows.place_N.tolist()
    ([0, 2, 3], [0, 0, 0, 0, 1, 1, 2], [0, 1, 2, 3, 2, 3, 3])
    """
    assert tokens >= 2, tokens
    last = max(tokens - 1 - length, 0)
    start_B = np.append(np.arange(0, last, max(length // 2, 1)), last)
    label_N = np.arange(1, tokens)
    window_N = np.searchsorted(start_B + min(length, tokens - 1), label_N)
    return Windows(start_B, window_N, label_N - 1 - start_B[window_N])


def batch_of(tokenizer: Tokenizer, tokens: Tokens, windows: Windows, rows: np.ndarray, length: int) -> Batch:
    """Some of a text's windows as a batch, with the token behind each token as its label."""
    id_N = tokens.id_N
    at_BT = windows.start_B[rows, None] + np.arange(min(length, len(id_N) - 1))
    byte_N = torch.tensor([len(text) for text in tokens.byte_N])
    labels_BT: Tensor = torch.from_numpy(id_N[at_BT + 1])
    return Batch(
        tokens_BT=torch.from_numpy(id_N[at_BT]),
        labels_BT=labels_BT,
        sequence_B=torch.from_numpy(sequence_ids(SPLIT, rows)),
        document_B=torch.zeros(len(rows), dtype=torch.long),
        bytes_B=byte_N[at_BT + 1].sum(1),
        domain=SPLIT,
        tokenizer=tokenizer_digest(tokenizer),
    )
