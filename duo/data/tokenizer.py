"""Tokenizers: a byte-level BPE trained on the training documents, or a model's own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from duo.backbone.pretrained import find_json

END = "<|endofdocument|>"
ENDS = (END, "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<｜end▁of▁sentence｜>", "[SEP]")
"""Tokens that end a document, in the tokenizers of the models that there are."""
WORD_END = re.compile(r"(?<=\w)(?=[ \n])")


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


def read_tokenizer(where: str, vocabulary: int, setting: str) -> Tokenizer:
    """The fast tokenizer of a model's folder, of a hub's name, or of a tokenizer.json.

    Args:
        where: the folder, name or file.
        vocabulary: tokens that the embedding has room for.
        setting: what errors call it.

    Raises:
        ValueError: there is none, it cannot be read, is larger than the vocabulary, or has no end of a document.
    """
    told = find_json(where, "tokenizer.json", setting)
    try:
        tokenizer = literal(Tokenizer.from_str(json.dumps(told)))
    except Exception as error:  # tokenizers has exceptions of its own
        raise ValueError(f"{setting}={where}: tokenizer.json cannot be read: {error}") from error
    # on its own account: without these, what it makes of a text depends on the texts beside it, or is a part
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if (largest := max(tokenizer.get_vocab().values(), default=-1)) >= vocabulary:
        raise ValueError(
            f"{setting}={where} has tokens up to {largest}, and backbone.vocabulary={vocabulary} has room for 0 to "
            f"{vocabulary - 1}: give the model's own tokenizer, or for a new backbone backbone.vocabulary={largest + 1}"
        )
    if end_token(tokenizer) is None:
        raise ValueError(f"{setting}={where} has no token that ends a document: add one, such as {ENDS[1]}")
    return tokenizer


def end_token(tokenizer: Tokenizer) -> int | None:
    """Number of the token that ends a document: one of `ENDS`, or what the tokenizer itself puts behind a text."""
    behind = json.loads(tokenizer.to_str())["post_processor"] or {}
    template: list[Any] = behind.get("single") or [{}]  # other post-processors have none
    last = template[-1]
    names = [*ENDS, *([last["SpecialToken"]["id"]] if "SpecialToken" in last else [])]
    return next((number for name in names if (number := tokenizer.token_to_id(name)) is not None), None)


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """SHA-256 of a tokenizer: what its tokens mean."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()


def literal(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, told that a document which spells the end of a document does not end there."""
    tokenizer.encode_special_tokens = True  # no tokenizer.json keeps it
    return tokenizer


def parts(tokenizer: Tokenizer, text: str) -> Iterator[str]:
    """A document in the pieces that are tokenized one by one: of a tokenizer that is not ours, the whole."""
    if tokenizer.token_to_id(END) is not None:
        yield from pieces(text)
    elif isinstance(tokenizer.model, models.Unigram):  # finds special tokens among its own words, wherever they stand
        special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
        inside = (f"(?<={re.escape(token[0])})(?={re.escape(token[1:])})" for token in special if len(token) > 1)
        yield from re.split("|".join(inside) or "(?!)", text)
    else:
        yield text


def pieces(text: str, most: int = 1 << 16) -> Iterator[str]:
    """A document in pieces of about `most` characters, of which our tokenizers make the tokens of the whole.

    They take hundreds of bytes a token, which a long document need not.
    """
    start = 0
    # no token reaches over such a place: in our byte-level BPE, white space stands at the front of words
    while len(text) - start > most and (cut := WORD_END.search(text, start + most)):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]
