"""How hard tokens are, by brute force on toys; windows; kinds of tokens."""

import itertools

import numpy as np
import pytest
import torch
from conftest import random_tokens, toy_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_texts import CODE, Informed, toy_reader, toy_tokenizer

from duo import Budget, Trial, replay
from duo.data.windows import tokenize, windows_of
from duo.evaluation.categories import CATEGORIES, FACTS, is_python, label
from duo.evaluation.difficulty import (
    Losses,
    average,
    by_context,
    by_frequency,
    difficulty,
    hard_without_potential,
    rank_by_potential,
)
from duo.evaluation.passage import read_passage
from duo.report.passage import tables, token_strings
from duo.routing.trial import NoLabels


def losses_of(backbone, tokens_BT, labels_BT, route_BTL):
    """loss_BT of routes, by a softmax of its own."""
    with torch.no_grad():
        logits_BTV = backbone(tokens_BT, replay(route_BTL)).logits_BTV
    return -logits_BTV.log_softmax(-1).gather(-1, labels_BT[..., None])[..., 0]


def greedy(backbone, tokens_BT, labels_BT, counts):
    """The committed oracle's route_BTL by brute force: at each place every pattern, behind the routes chosen before."""
    layers = backbone.config.layers
    patterns = [
        pattern for pattern in itertools.product(range(3), repeat=layers)
        if (pattern.count(0), pattern.count(1), pattern.count(2)) == counts
    ]  # fmt: skip
    route_BTL = torch.full((*tokens_BT.shape, layers), 1)
    for end in range(1, tokens_BT.shape[1] + 1):
        values = []
        for pattern in patterns:
            route_BTL[:, end - 1] = torch.tensor(pattern)
            values.append(losses_of(backbone, tokens_BT[:, :end], labels_BT[:, :end], route_BTL[:, :end])[:, -1])
        route_BTL[:, end - 1] = torch.tensor(patterns)[torch.stack(values).argmin(0)]
    return route_BTL


def toy_trial(backbone, tokens=6, labels=True):
    whole_BT = random_tokens(2, tokens + 1)
    return Trial(backbone, whole_BT[:, :-1], whole_BT[:, 1:] if labels else None), whole_BT


@pytest.mark.parametrize(
    ("family", "budget", "counts"),
    [("llama", Budget(1), (0, 2, 1)), ("opt", Budget(2), (0, 1, 2)), ("llama", Budget(1, 1), (1, 1, 1))],
)
def test_difficulty_is_what_brute_force_finds(family, budget, counts):
    backbone = toy_backbone(family=family)
    trial, whole_BT = toy_trial(backbone)
    tokens_BT, labels_BT = whole_BT[:, :-1], whole_BT[:, 1:]
    found = difficulty(trial, budget)
    route_BTL = greedy(backbone, tokens_BT, labels_BT, counts)
    assert torch.equal(found.route_BTL, route_BTL)
    uniform = [torch.full_like(route_BTL, module) for module in (1, 2)]
    for loss_BT, route in zip(found[:3], (*uniform, route_BTL), strict=True):
        torch.testing.assert_close(loss_BT, losses_of(backbone, tokens_BT, labels_BT, route), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.gap_BT, found.loss_small_BT - found.loss_oracle_BT)


def test_a_budget_without_big_modules_leaves_no_potential():
    found = difficulty(toy_trial(toy_backbone())[0], Budget(0))
    assert not found.gap_BT.any()


def test_where_there_are_too_many_patterns_each_token_still_spends_its_budget_and_starts_from_a_better_place():
    backbone = toy_backbone(layers=20)
    trial, whole_BT = toy_trial(backbone, tokens=2)
    start_CL = torch.tensor([[2, 1] * 10])
    found = difficulty(trial, Budget(10), start_CL, width=2)
    assert ((found.route_BTL == 2).sum(-1) == 10).all()
    start_BTL = start_CL[0].expand_as(found.route_BTL)
    started_BT = losses_of(backbone, whole_BT[:, :-1], whole_BT[:, 1:], start_BTL)
    assert (found.loss_oracle_BT[:, 0] <= started_BT[:, 0] + 1e-5).all()  # later tokens stand behind other routes


def test_without_labels_there_is_no_difficulty():
    with pytest.raises(NoLabels):
        difficulty(toy_trial(toy_backbone(), labels=False)[0], Budget(1))


@given(st.integers(2, 300), st.integers(1, 40))
def test_windows_score_every_token_once_where_most_tokens_stand_in_front(tokens, length):
    start_B, window_N, place_N = windows_of(tokens, length)
    reach = min(length, tokens - 1)
    assert start_B[0] == 0
    assert start_B[-1] + reach == tokens - 1
    assert (np.diff(start_B) > 0).all()
    assert (np.diff(start_B) <= max(length // 2, 1)).all()
    for token, window, place in zip(range(1, tokens), window_N, place_N, strict=True):
        assert start_B[window] + place + 1 == token
        assert place == max(token - 1 - start for start in start_B if start < token <= start + reach)


def test_a_window_that_holds_the_whole_text_gives_the_numbers_of_one_pass():
    reader = toy_reader(length=64)
    passage = read_passage(reader, CODE, most=60)
    id_1T = torch.from_numpy(passage.tokens.id_N)[None]
    trial = Trial(reader.backbone, id_1T[:, :-1], id_1T[:, 1:])
    found = difficulty(trial, Budget(1))
    assert passage.windows == 1
    for loss_N, loss_1T in zip(passage.losses, found, strict=False):
        np.testing.assert_allclose(loss_N, loss_1T[0], atol=1e-5)
    assert (passage.oracle_NL == found.route_BTL[0].numpy()).all()
    router_1TL = torch.from_numpy(passage.router_NL)[None]
    routed_1T = losses_of(reader.backbone, id_1T[:, :-1], id_1T[:, 1:], router_1TL)
    np.testing.assert_allclose(passage.router_N, routed_1T[0], atol=1e-5)
    assert passage.front_N.tolist() == [*range(1, id_1T.shape[1])]


def test_each_token_of_a_long_text_has_the_numbers_of_its_window():
    reader = toy_reader(length=12)
    passage = read_passage(reader, CODE, most=80)
    id_N = torch.from_numpy(passage.tokens.id_N)
    assert passage.windows > 2 * 4  # several batches
    for token in range(1, len(id_N)):
        front_1T = id_N[None, token - passage.front_N[token - 1] : token + 1]
        small_1TL = torch.ones(1, front_1T.shape[1] - 1, 3, dtype=torch.long)
        loss_1T = losses_of(reader.backbone, front_1T[:, :-1], front_1T[:, 1:], small_1TL)
        assert passage.losses.small_N[token - 1] == pytest.approx(float(loss_1T[0, -1]), abs=1e-4)
    assert ((passage.router_NL == 2).sum(1) == 1).all()
    assert not (passage.router_NL == passage.oracle_NL).all()


def test_a_fractional_budget_gives_some_tokens_one_big_module_more():
    passage = read_passage(toy_reader(Budget(0.5), length=12), CODE, most=60)
    assert {*(passage.oracle_NL == 2).sum(1)} == {1, 2}
    assert ((passage.oracle_NL == 2).sum(1) == (passage.router_NL == 2).sum(1)).all()  # by the same hash


def test_a_router_that_asks_for_labels_is_a_bound():
    assert read_passage(toy_reader(router=Informed), CODE, most=20).bound
    assert not read_passage(toy_reader(), CODE, most=20).bound


@settings(max_examples=40)
@given(st.text(st.characters(codec="utf-8"), min_size=1), st.integers(1, 30))
def test_the_tokens_give_the_text_again_and_each_has_one_category(text, most):
    whole, part = (tokenize(toy_tokenizer(), text, number) for number in (None, most))
    assert "".join(token_strings(whole)) == text
    assert text.startswith("".join(token_strings(part)))
    assert part.whole == (len(whole.id_N) <= most)
    for python in (False, True):
        labels = label(whole.byte_N, text, python)
        assert len(labels.category_N) == len(whole.id_N)
        assert set(labels.category_N) <= {*range(len(CATEGORIES))}
        for category_N, text_of in zip(labels.category_N, whole.byte_N, strict=True):
            blank = text_of.decode(errors="replace").isspace()
            assert blank == (CATEGORIES[category_N] == "whitespace") or not text_of.isascii()


def labelled(tokens, python=True):
    """Category and facts of tokens that are given as strings or bytes."""
    byte_N = [token if isinstance(token, bytes) else token.encode() for token in tokens]
    labels = label(byte_N, b"".join(byte_N).decode(), python)
    facts = [[fact for fact in FACTS if labels.facts[fact][place]] for place in range(len(tokens))]
    return [(CATEGORIES[place], *fact) for place, fact in zip(labels.category_N, facts, strict=True)]


LINE, START, INSIDE = FACTS
IN_CODE = [
    ("def", "keyword", LINE, START), (" def", "word", START), ("ault", "word", INSIDE), ("(", "punctuation"),
    ("self", "word", START), (",", "punctuation"), (" *", "operator"), ("names", "word", START), ("):", "punctuation"),
    ("\n    ", "whitespace"), ("ret", "keyword", LINE, START), ("urn", "keyword", INSIDE), (" not", "keyword", START),
    (" 0", "number", START), ("x1F", "number", INSIDE), (" ==", "operator"), (" ._", "punctuation", START),
    ("x", "word", INSIDE), ("\n", "whitespace"), ("   ", "whitespace"), (" \"", "punctuation", LINE),
    ("for", "keyword", START), ("é".encode()[:1], "word", INSIDE), ("é".encode()[1:], "word", INSIDE),
]  # fmt: skip
IN_PROSE = [
    ("The", "word", LINE, START), (" for", "word", START), (" Con", "word", START), ("gress", "word", INSIDE),
    ("'s", "word", INSIDE), (" '", "punctuation"), ("end", "word", START), ("'", "punctuation"), (" -", "punctuation"),
    ("-", "punctuation"), (" +", "operator"), (" 18", "number", START), ("90", "number", INSIDE),
    ("th", "number", INSIDE), (".", "punctuation"), ("\r\n\n", "whitespace"), ("  — ", "punctuation", LINE),
    ("漢", "word", START), (" 🦜", "punctuation"),
]  # fmt: skip


def test_what_is_taken_for_python():
    assert is_python(CODE)
    assert is_python("", "a.py")
    assert not is_python(CODE, "a.md")
    assert not is_python("From here we import what we need.\n" * 9)
    assert not is_python("import tea\n" + "and so on\n" * 100)


@pytest.mark.parametrize(("python", "expected"), [(True, IN_CODE), (False, IN_PROSE)])
def test_kinds_of_tokens_in_code_and_in_prose(python, expected):
    expected = [*expected]
    found = labelled([token for token, *_ in expected], python)
    if python:  # the é makes another word of `for`
        expected[-3] = ("for", "word", START)
    for (token, *kind), label_found in zip(expected, found, strict=True):
        assert (token, *label_found) == (token, *kind)


def test_ranking_and_groups_depend_on_nothing_but_the_numbers():
    assert rank_by_potential(np.array([1.0, 3, 1, -2, 3])).tolist() == [1, 4, 0, 2, 3]
    losses = Losses(*np.array([[9.0, 8, 7, 7, 1], [9, 2, 7, 7, 1], [9.05, 1, 6.95, 7, 0]]))
    assert hard_without_potential(losses, top=0.8).tolist() == [0, 2, 3]
    assert hard_without_potential(losses, top=0.8, bound=0.01).tolist() == [0, 3]
    assert hard_without_potential(losses, top=0.2).tolist() == [0]
    (mean,) = average({"some": np.array([0, 1, 1, 0, 0], bool), "none": np.zeros(5, bool)}, losses)
    assert (mean.name, mean.tokens, mean.loss_small, mean.loss_big) == ("some", 2, 7.5, 4.5)
    assert mean.gap == pytest.approx(mean.loss_small - mean.loss_oracle)


@given(st.lists(st.integers(0, 10**7), min_size=3, max_size=3), st.lists(st.integers(1, 2000), min_size=3, max_size=9))
def test_each_token_is_in_one_group_by_frequency_and_one_by_context(counts, front):
    token_N = np.arange(len(front)) % 3
    for groups in (by_frequency(token_N, np.array(counts)), by_context(np.array(front))):
        assert (np.sum([*groups.values()], axis=0) == 1).all()


def test_tables_count_each_token_once():
    passage = read_passage(toy_reader(), CODE)
    found = tables(passage, np.arange(330))
    assert len(found) == 4
    for name, (*rows, everything) in found.items():
        assert everything.tokens == len(passage.losses.small_N)
        if name != "Where it stands":  # facts may both be true, or none
            assert sum(row.tokens for row in rows) == everything.tokens
            assert sum(row.tokens * row.gap for row in rows) == pytest.approx(everything.tokens * everything.gap)
