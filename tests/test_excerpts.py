"""Excerpts: of many documents, a few sequences of each, none of two documents."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duo.data import DataConfig, TextData
from duo.data.excerpts import spread_rows, subset_rows, take_excerpts
from duo.data.tokenizer import END, train_tokenizer
from duo.data.tokens import encode

TOKENIZER = train_tokenizer(["abcdefgh"], 260)  # a token a letter
LENGTH = 4


def documents_of(sizes):
    """Documents of so many sequences each, and a rest; with their end, a letter is missing to the next sequence."""
    return ["abcdefgh"[number % 8] * (size * LENGTH + LENGTH - 2) for number, size in enumerate(sizes)]


def taken(sizes, wanted, each, join=False):
    texts = documents_of(sizes)
    return [*take_excerpts(TOKENIZER, lambda: iter(texts), LENGTH, wanted, each, join)]


SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(SIZES, st.integers(0, 40), st.integers(1, 6))
def test_no_document_gives_more_than_its_limit_unless_all_together_hold_too_few(sizes, wanted, each):
    found = taken(sizes, wanted, each)
    held = [size for size in sizes if size]  # of the others no sequence can be made
    count_D = np.bincount([row.document for row in found], minlength=len(held))
    assert len(found) == (min(wanted, sum(held)) if wanted else sum(held))
    limited = sum(min(size, each) for size in held)
    if wanted and limited >= wanted:
        assert count_D.max(initial=0) <= each
    elif wanted:  # the limit is raised as little as gives what is wanted: who gives less than another gives all
        assert all(
            count == size or count >= count_D.max() - 1 or number == count_D.nonzero()[0][-1]
            for number, (count, size) in enumerate(zip(count_D, held, strict=True))
            if count or sum(count_D) < wanted
        )


@settings(max_examples=100, deadline=None, derandomize=True)
@given(SIZES, st.integers(0, 40), st.integers(1, 6))
def test_a_sequence_lies_within_the_document_that_it_names(sizes, wanted, each):
    texts = [text for text in documents_of(sizes) if len(text) >= LENGTH]
    for row in taken(sizes, wanted, each):
        whole = np.concatenate([*encode(TOKENIZER, [texts[row.document]])])["id"]
        starts = range(0, len(whole) - LENGTH + 1, LENGTH)
        assert any(np.array_equal(whole[start : start + LENGTH], row.tokens) for start in starts)


def test_sequences_of_a_long_document_are_evenly_spaced():
    text = "".join(letter * LENGTH for letter in "hgfedcba")  # no two of them in a row are a token
    found = take_excerpts(TOKENIZER, lambda: [text], LENGTH, wanted=2, each=2, join=False)
    assert [TOKENIZER.decode(row.tokens.tolist())[0] for row in found] == ["f", "b"]


def test_short_documents_are_joined_until_they_fill_a_sequence_and_count_as_one():
    texts = ["a", "b", "c" * 9, "d", "e"]
    found = [*take_excerpts(TOKENIZER, lambda: texts, LENGTH, wanted=0, each=1, join=True)]
    end = TOKENIZER.token_to_id(END)
    a, b = (TOKENIZER.encode(letter).ids[0] for letter in "ab")
    assert [row.tokens.tolist() for row in found][0] == [a, end, b, end]
    assert [row.document for row in found] == [0, 1, 1, 2]
    assert not [*take_excerpts(TOKENIZER, lambda: ["a", "b"], LENGTH, wanted=0, each=1, join=False)]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=9), st.integers(1, 60))
def test_first_rows_are_of_as_many_documents_as_possible(counts, wanted):
    document_N = np.repeat(np.arange(len(counts)), counts)
    assert sorted(spread_rows(document_N)) == list(range(len(document_N)))
    found_D = np.bincount(document_N[subset_rows(document_N, wanted)], minlength=len(counts))
    assert found_D.sum() == min(wanted, len(document_N))
    # none gives a second before all gave one
    assert all(found >= min(count, found_D.max() - 1) for found, count in zip(found_D, counts, strict=True))


@pytest.mark.parametrize(("documents", "most"), [(8, 8), (4, 16)])
def test_a_hold_out_of_ones_own_files_takes_a_few_sequences_of_each_document(tmp_path, documents, most):
    for number in range(12):
        words = " ".join(f"word{(number * 7 + step * step) % 97}" for step in range(900))
        (tmp_path / f"{'held' if number < 10 else 'train'}{number}.txt").write_text(f"{number} {words}")
    config = DataConfig(
        source="files", tokens=16, holdout_tokens=1024, holdout_documents=documents,
        train=[f"{tmp_path}/train*"], holdouts={"held": [f"{tmp_path}/held*"]},
    )  # fmt: skip
    data = TextData(config, 300, tmp_path / "cache")
    count_D = np.bincount(data.documents("holdouts.held"))
    assert (count_D.sum(), count_D.max(), len(count_D)) == (64, most, documents)


@pytest.mark.parametrize("wanted", [0, 3, 9, 40])
def test_documents_are_read_once_unless_their_tokens_are_too_many_to_keep(monkeypatch, wanted):
    texts, read = documents_of([3, 0, 5, 1]), []

    def documents():
        read.append(1)
        return iter(texts)

    def excerpts():
        read.clear()
        return [
            (row.document, *row.tokens.tolist())
            for row in take_excerpts(TOKENIZER, documents, LENGTH, wanted, each=2, join=False)
        ], len(read)

    kept, times = excerpts()
    assert times == 1
    monkeypatch.setattr("duo.data.excerpts.KEPT", 0)
    assert excerpts() == (kept, 2 if wanted else 1)
