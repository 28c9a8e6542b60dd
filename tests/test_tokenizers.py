"""Any fast tokenizer: the bytes that tokens take are the text's, and special tokens spelled in documents stay text."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, processors
from toy_tokenizers import KINDS, byte_level, sentencepiece

from duo.data import DataConfig, TextData
from duo.data.token_text import spells_text, token_bytes, token_texts
from duo.data.tokenizer import begin_token, end_token, literal, read_tokenizer, tokenizer_digest
from duo.data.tokens import encode
from duo.data.windows import batch_of, tokenize, windows_of
from duo.inference.prompts import encode_prompts

MADE = {name: literal(make()) for name, make in KINDS.items()}
SPELLED = {"byte-level", "byte-level, split"}
PIECES = ["the words", " of", "  ", "\n", "é", "e\u0301", "漢字", "🦜", "<s>", "</s>", "<|endoftext|>", "<0x41>", "▁",
          "[SEP]", "    return", "<tool>", "1234"]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), min_size=1, max_size=8).map("".join).filter(str.strip)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(documents=st.lists(TEXTS, min_size=1, max_size=3))
def test_the_bytes_of_a_documents_tokens_are_the_texts(name, documents):
    tokenizer = MADE[name]
    stream = np.concatenate([*encode(tokenizer, documents)])
    ends = np.flatnonzero(stream["id"] == end_token(tokenizer))
    assert len(ends) == len(documents)  # those that are spelled end nothing
    for text, part in zip(documents, np.split(stream, ends + 1), strict=False):
        assert part["bytes"].sum() == len(text.encode())
        assert part["bytes"].min() >= 0


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(text=TEXTS)
def test_the_bytes_of_tokens_one_after_another_begin_the_text(name, text):
    found = tokenize(MADE[name], text)
    assert text.encode().startswith(b"".join(found.byte_N))
    assert len(found.byte_N) == len(found.id_N)
    assert text.encode() == b"".join(found.byte_N) or name not in SPELLED


@pytest.mark.parametrize("name", KINDS)
def test_what_spells_texts_is_told_from_what_changes_them(name):
    assert spells_text(MADE[name]) == (name in SPELLED)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(text=TEXTS)
def test_tokens_that_are_said_to_spell_texts_do(text):
    for name in SPELLED:
        byte_V = token_texts(MADE[name])
        ids = MADE[name].encode(text, add_special_tokens=False).ids
        assert b"".join(byte_V[token] for token in ids) == text.encode()


@pytest.mark.parametrize("name", KINDS)
def test_a_tokens_text_is_what_it_adds_behind_another(name):
    tokenizer = MADE[name]
    front = tokenizer.encode("the", add_special_tokens=False).ids
    byte_V = token_texts(tokenizer)
    for number, text in enumerate(byte_V):
        special = number in tokenizer.get_added_tokens_decoder()
        if special or b"\xef\xbf\xbd" in text or not text.isascii() or tokenizer.id_to_token(number) is None:
            continue
        whole = tokenizer.decode([*front, number], skip_special_tokens=False)
        assert whole.encode() == tokenizer.decode(front).encode() + text, (number, tokenizer.id_to_token(number))


def test_bytes_and_special_and_added_tokens_have_their_bytes():
    byte_V = token_texts(MADE["sentencepiece BPE"])
    assert byte_V[MADE["sentencepiece BPE"].token_to_id("<0x0A>")] == b"\n"
    assert byte_V[MADE["sentencepiece BPE"].token_to_id("<0xE6>")] == b"\xe6"
    assert byte_V[MADE["sentencepiece BPE"].token_to_id("</s>")] == b""
    level = MADE["byte-level"]
    assert token_texts(level)[level.token_to_id("<tool>")] == b"<tool>"
    assert token_bytes(level)[level.token_to_id("<|im_start|>")] == 0
    holes = json.loads(level.to_str())
    holes["added_tokens"][-1]["id"] += 7
    holed = Tokenizer.from_str(json.dumps(holes))
    assert len(token_texts(holed)) == max(holed.get_vocab().values()) + 1  # numbers that nobody has hold nothing


def saved(tmp_path, tokenizer):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_the_end_of_a_document_is_the_models():
    assert end_token(MADE["sentencepiece BPE"]) == 2
    assert end_token(MADE["byte-level"]) == MADE["byte-level"].token_to_id("<|endoftext|>")
    other = Tokenizer(models.WordLevel({"a": 0, "<over>": 1}, unk_token="a"))
    assert end_token(other) is None
    other.add_special_tokens(["<over>"])
    other.post_processor = processors.TemplateProcessing(single="$A <over>", special_tokens=[("<over>", 1)])
    assert end_token(other) == 1
    other.post_processor = processors.TemplateProcessing(single="<over> $A", special_tokens=[("<over>", 1)])
    assert end_token(other) is None


def named(tmp_path, tokenizer, **told):
    """As it is read from a folder whose tokenizer_config.json says this."""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    return read_tokenizer(str(saved(tmp_path, tokenizer)), 600, "data.tokenizer")


def test_what_begins_and_ends_a_text_is_what_the_models_folder_names(tmp_path):
    """A tokenizer.json has no field for them, and is all that is kept."""
    other = byte_level(end="<eot>")
    with pytest.raises(ValueError, match="or name one of its own as eos_token in tokenizer_config.json"):
        named(tmp_path, other)
    begin = sentencepiece()
    for tokenizer, told, expected in (
        (other, {"eos_token": "<eot>"}, (0, 0)),
        (other, {"eos_token": {"content": "<eot>"}, "bos_token": "<tool>"}, (other.token_to_id("<tool>"), 0)),
        (begin, {"bos_token": "<s>", "eos_token": "</s>"}, (1, 2)),
        (begin, {"bos_token": None, "eos_token": "</s>"}, (None, 2)),
        (byte_level(), {"eos_token": "<|im_start|>"}, (None, 0)),  # ends turns: <|endoftext|> ends documents
        (MADE["WordPiece"], {"eos_token": "[SEP]"}, (1, 2)),
    ):  # fmt: skip
        found = named(tmp_path, tokenizer, **told)
        kept = literal(Tokenizer.from_str(found.to_str()))
        assert (begin_token(kept), end_token(kept)) == expected
        for text in ("the words <eot></s>", ""):  # what a text's tokens are stays as it was
            for special in (False, True):
                assert found.encode(text, add_special_tokens=special).ids == literal(tokenizer).encode(text, add_special_tokens=special).ids  # fmt: skip  # noqa: E501
        if expected[0] is None:
            assert found.to_str() == tokenizer.to_str()
    padded = byte_level()
    padded.enable_padding(length=8, pad_id=5)
    kept = named(tmp_path, padded, bos_token=None, eos_token="<eot>")
    assert (begin_token(kept), end_token(kept)) == (None, 0)


@pytest.mark.parametrize("text", ["", " ", "\r\n"])
def test_a_text_may_have_no_token(text):
    found = tokenize(MADE["WordPiece"], text)
    assert (found.id_N.tolist(), found.byte_N, found.whole) == ([], [], True)
    assert encode_prompts([text], MADE["WordPiece"]) == [[end_token(MADE["WordPiece"])]]


def test_a_tokenizer_that_cannot_be_used_says_so_in_one_line(tmp_path):
    folder = saved(tmp_path, byte_level())
    largest = max(byte_level().get_vocab().values())
    assert tokenizer_digest(read_tokenizer(str(folder), largest + 1, "data.tokenizer"))
    (folder / "mine.json").write_bytes((folder / "tokenizer.json").read_bytes())
    for name in ("tokenizer.json", "mine.json"):
        read_tokenizer(str(folder / name), largest + 1, "data.tokenizer")
    with pytest.raises(ValueError, match=rf"=.*vocabulary={largest} .*backbone\.vocabulary={largest + 1}$"):
        read_tokenizer(str(folder), largest, "data.tokenizer")
    saved(tmp_path, Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(ValueError, match="no token that ends a document: add one"):
        read_tokenizer(str(folder), 9, "data.tokenizer")
    (tmp_path / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(ValueError, match=r"data\.tokenizer=.*tokenizer\.json cannot be read") as error:
        read_tokenizer(str(folder), 9, "data.tokenizer")
    assert "\n" not in str(error.value)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"data\.tokenizer=.* holds no tokenizer\.json"):
        read_tokenizer(str(folder), 9, "data.tokenizer")


@pytest.mark.parametrize("name", ["byte-level", "sentencepiece BPE"])
def test_batches_hold_the_bytes_of_their_labels(name, tmp_path):
    tokenizer = MADE[name]
    texts = {
        "train": ["the words of a text, </s> and more. " * 40] * 2,
        "held": ["words  in the text\nand <|endoftext|> words " * 30, "a text of words. " * 50],
    }
    for kind, documents in texts.items():
        for number, text in enumerate(documents):
            (tmp_path / f"{kind}{number}.txt").write_text(text + str(number))
    config = DataConfig(
        source="files", train=[f"{tmp_path}/train*.txt"], holdouts={"held": [f"{tmp_path}/held*.txt"]}, tokens=16,
        tokenizer=str(saved(tmp_path, tokenizer)), calibration={"train2": [f"{tmp_path}/train1.txt"]},
        holdout_tokens=0, calibration_tokens=0, subset_tokens=5,
    )  # fmt: skip
    data = TextData(config, 512, tmp_path / "cache")
    for batches, length in ((data.holdout("held"), 16), (data.subset("held"), 5)):
        for batch in batches:
            for labels, first, taken in zip(batch.labels_BT, batch.tokens_BT[:, 0], batch.bytes_B, strict=True):
                front = tokenizer.encode("the", add_special_tokens=False).ids  # else white space in front is stripped
                written = tokenizer.decode([*front, first, *labels.tolist()]).encode()
                assert len(written) - len(tokenizer.decode([*front, first]).encode()) == taken
                assert len(labels) == length
    # the vocabulary trains nothing, and so changes nothing of what is prepared
    other = TextData(config, 600, tmp_path / "cache")
    other.setup()
    assert other.digests == data.digests


def test_a_texts_windows_hold_the_bytes_of_their_labels():
    tokenizer = MADE["sentencepiece BPE"]
    tokens = tokenize(tokenizer, "the words of a naïve text 漢字")
    windows = windows_of(len(tokens.id_N), 100)
    batch = batch_of(tokenizer, tokens, windows, np.arange(1), 100)
    assert batch.bytes_B.tolist() == [sum(map(len, tokens.byte_N[1:]))]
    assert sum(map(len, tokens.byte_N)) == len("the words of a naïve text 漢字".encode())
    assert torch.equal(batch.labels_BT[0], torch.from_numpy(tokens.id_N[1:]))
