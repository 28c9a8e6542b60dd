"""Where a text ends: stop strings, stop tokens, and what a stream shows of it."""

import itertools

import pytest
from conftest import toy_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generate import PROMPTS, TWO, toy_router
from toy_texts import CODE, toy_tokenizer

from duo import Spec
from duo.data.token_text import token_texts
from duo.data.tokenizer import END
from duo.inference import generate, stream
from duo.inference.text import Text

QUICK = settings(max_examples=60, deadline=None)


def naive(pieces, stop):
    """The text of bytes up to where a stop string first ends, and how many pieces that took."""
    for count in range(1, len(pieces) + 1):
        text = b"".join(pieces[:count]).decode(errors="replace")
        if count < len(pieces):  # a character that is not complete is no text yet
            while text.endswith("\N{REPLACEMENT CHARACTER}"):
                text = text[:-1]
        for end in range(len(text) + 1):
            if found := [one for one in stop if text[:end].endswith(one)]:
                return text[: end - max(map(len, found))], count
    return b"".join(pieces).decode(errors="replace"), len(pieces)


@QUICK
@given(st.text("ab#é漢🦜", max_size=14), st.lists(st.text("ab#é", min_size=1, max_size=4), max_size=3), st.data())
def test_a_text_ends_in_front_of_the_first_stop_string_however_it_is_cut_into_tokens(text, stop, data):
    content, pieces = text.encode(), []
    while content:
        size = data.draw(st.integers(1, 4))
        pieces.append(content[:size])
        content = content[size:]
    shown, given_ = Text(stop), []
    for number, piece in enumerate(pieces, 1):
        texts = shown.add(piece, last=number == len(pieces))
        assert not any("\N{REPLACEMENT CHARACTER}" in one for one in texts)  # no character is cut
        given_ += texts
        assert naive(pieces, stop)[0].startswith("".join(given_))  # nothing is taken back
        if shown.stopped:
            break
    expected, count = naive(pieces, stop)
    assert "".join(given_) == expected
    assert len(given_) == count == (number if pieces else 0)


@pytest.mark.parametrize("pieces", [[b"#aab#c"], [b"#", b"aab", b"#c"], [b"#a", b"a", b"b", b"#", b"c"]])
def test_of_several_stop_strings_the_one_that_ends_first_counts_whatever_the_tokens(pieces):
    shown = Text(["aab#c", "ab", "b#"])
    given_ = [text for piece in pieces if not shown.stopped for text in shown.add(piece)]
    assert "".join(given_) == "#a"
    assert shown.stopped


def test_bytes_that_are_no_text_are_shown_as_such():
    shown = Text()
    pieces = [b"a\xff", "é".encode()[:1], b"b", "漢".encode()[:2]]
    given_ = [shown.add(piece, last=piece is pieces[-1]) for piece in pieces]
    assert "".join(itertools.chain(*given_)) == b"".join(pieces).decode(errors="replace")


def written_text(tokens):
    byte_V = token_texts(toy_tokenizer())
    return b"".join(byte_V[token] for token in tokens).decode(errors="replace")


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_gives_exactly_the_final_text_token_by_token(seed):
    backbone, router = toy_backbone(vocabulary=330), toy_router("softmax_budget")
    about = {"most": 30, "tokenizer": toy_tokenizer(), "seed": seed, "stop_tokens": [17]}
    whole = generate(backbone, router, ["Für jeden", "", CODE[:20]], **about)
    streamed = [*stream(backbone, router, ["Für jeden", "", CODE[:20]], **about)]
    for number, one in enumerate(whole):
        mine = [part for part in streamed if part.prompt == number]
        assert [part.token for part in mine] == one.tokens
        assert "".join(part.text for part in mine) == one.text
        assert [part.ended for part in mine] == [None] * (len(mine) - 1) + [one.ended]
        assert one.text == written_text(one.tokens[:-1] if one.ended == "token" else one.tokens)
    # the same text again, stopped in the middle of it by a string that several tokens hold
    one = whole[0]
    if len(one.text) >= 8:
        stop = one.text[4:8]
        stopped = generate(backbone, router, ["Für jeden"], stop=[stop], **about)[0]
        assert stopped.ended == "stop"
        assert stopped.text == one.text[: one.text.index(stop)]
        assert stopped.tokens == one.tokens[: len(stopped.tokens)]


def test_a_stream_gives_a_token_before_the_next_one_is_computed():
    asked = []

    class Asked(type(toy_router("random"))):
        def route(self, trial):
            asked.append(trial.tokens_BT.shape[1])
            return super().route(trial)

    coming = stream(toy_backbone(), Asked(Spec(3, 16, TWO)), [[1, 2], [3]], 5)
    assert asked == []
    for step in range(5):
        assert [next(coming).prompt, next(coming).prompt] == [0, 1]
        assert asked == [*range(2, 3 + step)]
    assert [*coming] == []
    assert len(asked) == 5  # the last token is never read


def test_a_stop_token_ends_a_continuation_and_leaves_the_others_alone():
    backbone, router = toy_backbone(), toy_router("random")
    before = generate(backbone, router, PROMPTS, 12, seed=1)
    token = before[1].tokens[3]
    after = generate(backbone, router, PROMPTS, 12, seed=1, stop_tokens=[token])
    for one, cut in zip(before, after, strict=True):
        end = one.tokens.index(token) + 1 if token in one.tokens else 12
        assert cut.tokens == one.tokens[:end]
        assert cut.ended == ("token" if token in one.tokens else "length")
        assert len(cut.weight_TLM) == len(cut.flops_T) == len(cut.tokens)


def test_an_empty_text_begins_behind_the_end_of_a_document():
    backbone, router = toy_backbone(vocabulary=330), toy_router("softmax_budget")
    end = toy_tokenizer().token_to_id(END)
    empty, told = (generate(backbone, router, [prompt], 5, tokenizer=toy_tokenizer()) for prompt in ("", [end]))
    assert empty[0].tokens == told[0].tokens
