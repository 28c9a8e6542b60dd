"""What tokens stand for in a text, whatever kind of tokenizer made them.

Byte-level tokens spell bytes, sentencepiece's spell characters, or a byte where it falls back; added tokens spell
themselves, special ones nothing. A tokenizer may also change the text before it cuts it (normalise it, put a space in
front): then the bytes of its tokens are not those of the text, and only the places say which bytes a token took.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from tokenizers import AddedToken, Encoding, Tokenizer

ANCHOR = "x"  # a token in front of another one, which is then not the first of its text
FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
KEEPS = {"ByteLevel", "Digits", "Split"}  # pre-tokenizers that change no character, if Split removes none


def token_texts(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes that each token stands for within a text, by its number; none for special tokens and unused numbers.

    A token may be a part of a word, or of a character: bytes that are no text on their own.
    """
    numbers, added = tokenizer.get_vocab(), tokenizer.get_added_tokens_decoder()
    found, bytes_of = [b""] * (max(numbers.values(), default=-1) + 1), _spelling(tokenizer)
    for token, number in numbers.items():
        found[number] = _added_text(added[number]) if number in added else bytes_of(token)
    return found


def token_bytes(tokenizer: Tokenizer) -> np.ndarray:
    """Bytes of text that each token stands for within a text, (V,); 0 for special tokens."""
    return np.array([len(text) for text in token_texts(tokenizer)])


def spells_text(tokenizer: Tokenizer) -> bool:
    """Whether the bytes of a text's tokens are the text's, whatever the text is."""
    told = json.loads(tokenizer.to_str())
    parts = [*components(told["pre_tokenizer"])]
    return (
        told["normalizer"] is None
        and any(part["type"] == "ByteLevel" and not part["add_prefix_space"] for part in parts)
        and all(part["type"] in KEEPS and part.get("behavior") != "Removed" for part in parts)
        and {*_bytes_of_characters()} <= {*tokenizer.get_vocab()}
        and not any(token["lstrip"] or token["rstrip"] for token in told["added_tokens"] if not token["special"])
    )


def bytes_taken(text: str, encoding: Encoding) -> np.ndarray:
    """The bytes of a text that each of its tokens takes, (N,), counted where it ends: together those up to the last.

    A token's white space in front counts with it; of the tokens that share a character, the first has it.
    """
    code_N = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    bytes_before = np.concatenate([[0], np.cumsum(1 + (code_N > 0x7F) + (code_N > 0x7FF) + (code_N > 0xFFFF))])
    ends = np.maximum.accumulate(np.array([end for _, end in encoding.offsets], dtype=np.int64))
    return np.diff(bytes_before[ends], prepend=0)


def _added_text(token: AddedToken) -> bytes:
    return b"" if token.special else token.content.encode()


def _spelling(tokenizer: Tokenizer) -> Any:
    """What gives the bytes of a token of the model's own vocabulary."""
    kinds, decoder = {part["type"] for part in components(json.loads(tokenizer.to_str())["decoder"])}, tokenizer.decoder
    if "ByteLevel" in kinds:
        byte_of = _bytes_of_characters()
        return lambda token: bytes(byte_of.get(sign, 0) for sign in token)

    def spell(token: str) -> bytes:
        if "ByteFallback" in kinds and (byte := FALLBACK.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        if decoder is None:
            return f" {token}".encode()  # so tokenizers joins them
        return decoder.decode([ANCHOR, token]).removeprefix(ANCHOR).encode()

    return spell


def components(part: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """A tokenizer's pre-tokenizer, post-processor or decoder, as the ones that it is a sequence of."""
    if part is not None and part["type"] == "Sequence":
        for inner in part.get("pretokenizers") or part.get("decoders") or part.get("processors") or []:
            yield from components(inner)
    elif part is not None:
        yield part


def _bytes_of_characters() -> dict[str, int]:
    """The byte behind each character of a byte-level token.

    As GPT-2 wrote them: what Latin-1 shows stands for itself, the other bytes follow one another from 256 on.
    """
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(hidden)}
