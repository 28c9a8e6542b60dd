"""What is to be continued: texts or token ids, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from duo.backbone import PADDING, BackboneConfig
from duo.data.tokenizer import end_token
from duo.data.windows import tokenize

Prompt = str | Sequence[int]
"""A text, for which a tokenizer is needed, or ids of tokens."""


def encode_prompts(prompts: Sequence[Prompt], tokenizer: Tokenizer | None) -> list[list[int]]:
    """The ids of each prompt's tokens; an empty text is the end of a document, behind which another begins.

    Raises:
        ValueError: no prompt, one text instead of a list, a text without a tokenizer, or no ids.
    """
    if isinstance(prompts, str):
        raise ValueError(f"prompts={prompts!r} is one text: give a list of prompts")
    if len(prompts) == 0:
        raise ValueError("there is no prompt: give a list of one or more")
    return [_encode(prompt, number, tokenizer) for number, prompt in enumerate(prompts)]


def _encode(prompt: Prompt, number: int, tokenizer: Tokenizer | None) -> list[int]:
    if not isinstance(prompt, str):
        if len(prompt) == 0:
            raise ValueError(f"prompt {number} is empty: give one token or more, as that of the end of a document")
        return [int(token) for token in prompt]
    if tokenizer is None:
        raise ValueError(f"prompt {number} is a text: give a tokenizer, or ids of tokens")
    if prompt:
        return tokenize(tokenizer, prompt).id_N.tolist()
    end = end_token(tokenizer)
    if end is None:
        raise ValueError(
            f"prompt {number} is empty, and the tokenizer has no end of a document to begin behind: give a text"
        )
    return [end]


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
