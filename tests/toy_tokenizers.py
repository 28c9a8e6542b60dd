"""Small tokenizers of every kind that models come with, trained here."""

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

WORDS = [
    "the words of a text, and more words; naïve café 漢字 words in the text. " * 9,
    "def f(x):\n    return x + 1\n" * 9,
]
ALPHABET = pre_tokenizers.ByteLevel.alphabet()


def byte_level(end="<|endoftext|>", **changes):
    """GPT-2's kind; with `normalizer` Qwen's, with `split` Llama 3's, with `prefix` RoBERTa's."""
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=changes.get("prefix", False), use_regex=not changes.get("split"))
    tokenizer.pre_tokenizer = level
    if changes.get("split"):
        split = pre_tokenizers.Split(Regex(r"\p{N}{1,3}| ?\p{L}+|\s+|[^\s\p{L}\p{N}]+"), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    if changes.get("normalizer"):
        tokenizer.normalizer = changes["normalizer"]
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=[end], initial_alphabet=sorted(ALPHABET), show_progress=False
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    tokenizer.add_special_tokens([AddedToken("<|im_start|>", special=True)])
    tokenizer.add_tokens([AddedToken("    return", special=False), AddedToken("<tool>", special=False)])
    return tokenizer


def sentencepiece(kind="bpe", prepend=True):
    """Llama 2's and Mistral's kind: a space in front, and bytes for characters that it does not know."""
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    special = ["<unk>", "<s>", "</s>"]
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=special + fallback, show_progress=False)
    else:
        tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0)], unk_id=0, byte_fallback=True))
        trainer = trainers.UnigramTrainer(
            vocab_size=340, special_tokens=special + fallback, unk_token="<unk>", show_progress=False
        )
    if prepend:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # in training alone
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    tokenizer.train_from_iterator(WORDS, trainer)
    return _bytes_as_words(tokenizer, special)


def _bytes_as_words(tokenizer, special):
    """Takes the bytes out of the special tokens, so that they are words of the model, as sentencepiece's are."""
    import json

    told = json.loads(tokenizer.to_str())
    told["added_tokens"] = [token for token in told["added_tokens"] if token["content"] in special]
    told["model"]["byte_fallback"] = True
    if told["normalizer"]:
        told["pre_tokenizer"] = None
    return Tokenizer.from_str(json.dumps(told))


def word_piece():
    """BERT's kind: lower case, no accents, no white space, and unknown words."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(WORDS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


KINDS = {
    "byte-level": byte_level,
    "byte-level, split": lambda: byte_level(split=True),
    "byte-level, NFC": lambda: byte_level(normalizer=normalizers.NFC()),
    "byte-level, a space in front": lambda: byte_level(prefix=True),
    "sentencepiece BPE": sentencepiece,
    "sentencepiece BPE, Metaspace": lambda: sentencepiece(prepend=False),
    "sentencepiece Unigram": lambda: sentencepiece("unigram", prepend=False),
    "WordPiece": word_piece,
}
