"""A byte-level BPE, trained on the training documents."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endofdocument|>"
WORD_END = re.compile(r"(?<=\w)(?=[ \n])")


def token_bytes(tokenizer: Tokenizer) -> np.ndarray:
    """Bytes of text that each token stands for, (V,); 0 for the end of a document.

    Byte-level tokens write every byte as one character, so a token's length is its bytes.
    """
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return np.array([0 if token == END else len(token) for token, _ in tokens])


def token_texts(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes that each token stands for, by its number; none for the end of a document.

    A token may be a part of a word, or of a character: bytes that are no text on their own.
    """
    byte_of = _bytes_of_characters()
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [b"" if token == END else bytes(byte_of.get(sign, 0) for sign in token) for token, _ in tokens]


def _bytes_of_characters() -> dict[str, int]:
    """The byte behind each character of a byte-level token.

    As GPT-2 wrote them: what Latin-1 shows stands for itself, the other bytes follow one another from 256 on.
    """
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


def train_tokenizer(documents: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE of at most `vocabulary` tokens, the end of a document among them.

    Raises:
        ValueError: the vocabulary cannot hold all bytes.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()  # with all bytes in it, no text needs an unknown token
    if vocabulary < len(alphabet) + 1:
        raise ValueError(f"backbone.vocabulary={vocabulary} must be at least {len(alphabet) + 1}: all bytes and {END}")
    tokenizer = Tokenizer(models.BPE())
    # a space put in front would count as a byte that no document has
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator((piece for text in documents for piece in pieces(text)), trainer)
    return literal(tokenizer)


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """SHA-256 of a tokenizer: what its tokens mean."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()


def literal(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, told that a document which spells the end of a document does not end there."""
    tokenizer.encode_special_tokens = True  # no tokenizer.json keeps it
    return tokenizer


def pieces(text: str, most: int = 1 << 16) -> Iterator[str]:
    """A document in pieces of about `most` characters, of which tokenizers make the tokens of the whole.

    They take hundreds of bytes a token, which a long document need not.
    """
    start = 0
    # no token reaches over such a place: in byte-level BPE, white space stands at the front of words
    while len(text) - start > most and (cut := WORD_END.search(text, start + most)):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]
