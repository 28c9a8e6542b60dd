"""What is to be continued: texts or token ids, checked before any work."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from duo.backbone import PADDING, BackboneConfig
from duo.data.tokenizer import end_token, parts

Prompt = str | Sequence[int]
"""A text, for which a tokenizer is needed, or ids of tokens."""


def encode_prompts(prompts: Sequence[Prompt], tokenizer: Tokenizer | None) -> list[list[int]]:
    """The ids of each prompt's tokens; a text of no tokens is the end of a document, behind which another begins.

    Raises:
        ValueError: no prompt, one prompt instead of a list, a text without a tokenizer or that is no Unicode, or what
            are no ids.
    """
    if isinstance(prompts, str):
        raise ValueError(f"prompts={prompts!r} is one text: give a list of prompts")
    if len(prompts) == 0:
        raise ValueError("there is no prompt: give a list of one or more")
    return [_encode(prompt, number, tokenizer) for number, prompt in enumerate(prompts)]


def _encode(prompt: Prompt, number: int, tokenizer: Tokenizer | None) -> list[int]:
    if not isinstance(prompt, str):
        return _read_ids(prompt, number)
    if tokenizer is None:
        raise ValueError(f"prompt {number} is a text: give a tokenizer, or ids of tokens")
    if ids := _tokenize(prompt, number, tokenizer):  # of white space some tokenizers make none
        return ids
    end = end_token(tokenizer)
    if end is None:
        raise ValueError(
            f"prompt {number} has no token, and the tokenizer has no end of a document to begin behind: give a text"
        )
    return [end]


def _read_ids(prompt: Sequence[int], number: int) -> list[int]:
    try:
        ids = [operator.index(token) for token in prompt]  # not int, which takes 1.5 for 1
    except TypeError as error:
        raise ValueError(f"prompt {number} is {reprlib.repr(prompt)}: give a text, or a list of tokens' ids") from error
    if not ids:
        raise ValueError(f"prompt {number} is empty: give one token or more, as that of the end of a document")
    return ids


def _tokenize(prompt: str, number: int, tokenizer: Tokenizer) -> list[int]:
    try:
        prompt.encode()
    except UnicodeEncodeError as error:  # a command's argument holds what its user typed, whatever bytes these are
        raise ValueError(f"prompt {number} is no text in Unicode: {prompt[error.start]!r} at {error.start}") from error
    encoded = [tokenizer.encode(part, add_special_tokens=False) for part in parts(tokenizer, prompt)]
    return [token for encoding in encoded for token in encoding.ids]


def check_tokens(tokens: Sequence[int], vocabulary: int, what: str) -> None:
    """Raises ValueError where an id is none of the backbone's."""
    for place, token in enumerate(tokens):
        if not 0 <= token < vocabulary:
            raise ValueError(
                f"{what} holds the unknown token {token} at place {place}: the backbone knows 0 to {vocabulary - 1}"
            )


def check_length(config: BackboneConfig, lengths: Sequence[int], most: int) -> None:
    """Raises ValueError where prompts and what is to be written do not fit into what the backbone reads."""
    longest, (limit, setting) = max(lengths), config.limit
    # the last token that is written is never read
    if longest + most - 1 > limit:
        raise ValueError(
            f"prompt {lengths.index(longest)} has {longest} tokens, and {most} more are to be written: the backbone "
            f"reads at most {setting}={limit}; give a shorter prompt, or ask for fewer tokens"
        )


def pad(prompts: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """token_BT with padding on the left."""
    length = max(map(len, prompts))
    return torch.tensor([[PADDING] * (length - len(ids)) + [*ids] for ids in prompts], device=device)
