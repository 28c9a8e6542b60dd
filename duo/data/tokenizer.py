"""Tokenizers: a byte-level BPE trained on the training documents, or a model's own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from duo.backbone.pretrained import find_beside, find_json
from duo.data.token_text import components

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
    named = find_beside(where, "tokenizer_config.json", setting)
    try:
        tokenizer = Tokenizer.from_str(json.dumps(told))
    except Exception as error:  # tokenizers has exceptions of its own
        raise ValueError(f"{setting}={where}: tokenizer.json cannot be read: {error}") from error
    # on its own account: without these, what it makes of a text depends on the texts beside it, or is a part
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer = literal(_with_named(tokenizer, named))
    if (largest := max(tokenizer.get_vocab().values(), default=-1)) >= vocabulary:
        raise ValueError(
            f"{setting}={where} has tokens up to {largest}, and backbone.vocabulary={vocabulary} has room for 0 to "
            f"{vocabulary - 1}: give the model's own tokenizer, or for a new backbone backbone.vocabulary={largest + 1}"
        )
    if end_token(tokenizer) is None:
        raise ValueError(
            f"{setting}={where} has no token that ends a document: add one, such as {ENDS[1]}, or name one of its own "
            "as eos_token in tokenizer_config.json"
        )
    return tokenizer


def begin_token(tokenizer: Tokenizer) -> int | None:
    """Number of the token in front of a text: what its model's folder names, or it itself puts there."""
    named = _named(tokenizer)
    return tokenizer.token_to_id(named[0]) if named else next(iter(tokenizer.encode("").ids), None)


def end_token(tokenizer: Tokenizer) -> int | None:
    """Number of the token that ends a document.

    It is what the folder of its model names, else one of `ENDS`, or what the tokenizer itself puts behind a text.
    """
    behind = [part["single"][-1] for part in _templates(tokenizer)]
    names = [*_named(tokenizer)[1:], *ENDS, *(last["SpecialToken"]["id"] for last in behind if "SpecialToken" in last)]
    return next((number for name in names if (number := tokenizer.token_to_id(name)) is not None), None)


def _with_named(tokenizer: Tokenizer, told: dict[str, Any]) -> Tokenizer:
    """The tokenizer with the tokens that its tokenizer_config.json says begin and end texts, if none would think so.

    A tokenizer.json has no field for them: they stand in a template for pairs of texts, which nobody encodes here.
    """
    begin, end = begin_token(tokenizer), end_token(tokenizer)
    plain = end if begin is None else begin, end
    said_begin, said_end = (_content(told.get(key)) for key in ("bos_token", "eos_token"))
    if said_end in ENDS or end is None:  # another beside one of ENDS ends the turns of a conversation
        end = end if (number := tokenizer.token_to_id(said_end)) is None else number
    begin = end if begin is None else begin
    begin = begin if (number := tokenizer.token_to_id(said_begin)) is None else number
    if end is None or begin is None or (begin, end) == plain:
        return tokenizer
    texts = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    special = {number: tokenizer.id_to_token(number) for number in (begin, end)}
    first, last = ({"SpecialToken": {"id": special[number], "type_id": 0}} for number in (begin, end))
    whole = json.loads(tokenizer.to_str())
    whole["post_processor"] = {"type": "Sequence", "processors": [*components(whole["post_processor"]), {
        "type": "TemplateProcessing", "single": texts[:1], "pair": [first, texts[0], last, texts[1]],
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]} for number, name in special.items()},
    }]}  # fmt: skip
    return Tokenizer.from_str(json.dumps(whole))


def _named(tokenizer: Tokenizer) -> list[str]:
    """The tokens that `_with_named` put there: what begins and what ends a text; none where it put none."""
    for part in _templates(tokenizer):
        special = [each["SpecialToken"]["id"] for each in part["pair"] if "SpecialToken" in each]
        if len(part["single"]) == 1 and len(special) == 2:
            return special
    return []


def _templates(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    processor = tokenizer.post_processor
    # as pickle has it: all of the tokenizer takes a second to write where the vocabulary is large
    told = None if processor is None else json.loads(processor.__getstate__())
    return [part for part in components(told) if part["type"] == "TemplateProcessing"]


def _content(token: Any) -> str:
    """The text of a token as a tokenizer_config.json says it; of none, what no token is."""
    return str(token.get("content", "") if isinstance(token, dict) else token or "")


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
