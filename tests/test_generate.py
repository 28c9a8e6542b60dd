"""Generation: what is written under every deployable router, how tokens are drawn, and where a text ends."""

import itertools
import math

import pytest
import torch
from conftest import random_route, random_tokens, toy_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from toy_texts import CODE, Informed, toy_tokenizer

from duo import Budget, Router, Spec, Trial, one_hot, replay
from duo.backbone.flops import run_flops
from duo.backbone.room import Room
from duo.data.tokenizer import END, token_texts
from duo.inference import Decoder, Sampling, compare_with_whole_pass, generate, stream
from duo.inference.sampling import draw
from duo.inference.text import Text
from duo.routing import registry
from duo.routing.router import route_and_run
from duo.testing import is_bound

SHIPPED = [name for name, points in registry.available().items() if points[0].module.startswith("routers.")]
TWO, THREE = Budget(1), Budget(1, 1)  # modules allowed
SHAPES = [
    {"family": family, "skip_scope": scope, "key_value_heads": heads}
    for family, scope, heads in (
        ("llama", "ffn", 2), ("llama", "block", 1), ("opt", "ffn", None), ("opt", "block", 2),
    )
]  # fmt: skip
PROMPTS = [[5, 9, 2, 60, 33], [7], [1, 2, 3, 4, 5, 6, 7, 8]]  # unequal
GREEDY = Sampling(temperature=0)
QUICK = settings(max_examples=60, deadline=None)


def toy_router(name, budget=TWO, seed=0, **options):
    """A router whose every weight says something: at first many are 0, and all tokens alike to it."""
    torch.manual_seed(seed)
    router = registry.build(name, Spec(3, 16, budget), options)
    with torch.no_grad():
        for parameter in router.parameters():
            parameter.add_(torch.randn_like(parameter))
    return router.eval()


def whole_pass(backbone, router, tokens, sequence=0):
    """One pass over one sequence, without padding, memory or steps."""
    trial = Trial(backbone, torch.tensor([tokens]), None, torch.tensor([sequence]))
    with torch.no_grad():
        return route_and_run(backbone, router, trial)


# What is written


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["random", "fixed", "softmax_budget", "ngram_budget"])
def test_greedy_takes_the_argmax_of_a_full_pass_at_every_token_of_every_prompt(name, shape):
    backbone, router = toy_backbone(**shape), toy_router(name, THREE)
    found = generate(backbone, router, PROMPTS, 6, GREEDY)
    for number, (prompt, one) in enumerate(zip(PROMPTS, found, strict=True)):
        run = whole_pass(backbone, router, prompt + one.tokens[:-1], number)
        at = slice(len(prompt) - 1, None)
        assert one.tokens == run.logits_BTV[0, at].argmax(-1).tolist()
        assert torch.equal(one.weight_TLM, run.weight_BTLM[0, at])
        position_BT = torch.arange(run.tokens_BT.shape[1])[None]
        assert one.flops_T == run_flops(backbone.config, run.weight_BTLM, position_BT)[0, at].tolist()


def test_every_shipped_router_that_needs_no_labels_writes_what_its_full_passes_say():
    backbone = toy_backbone()
    deployable = [name for name in SHIPPED if not is_bound(registry.load(name))]
    assert {*SHIPPED} - {*deployable} == {"oracle", "best_of_random"}
    for name in deployable:
        options = {"patterns": 2} if name == "advised" else {}
        router = toy_router(name, **options)
        one = generate(backbone, router, PROMPTS[:2], 3, GREEDY)[0]
        run = whole_pass(backbone, router, PROMPTS[0] + one.tokens[:-1])
        assert one.tokens == run.logits_BTV[0, len(PROMPTS[0]) - 1 :].argmax(-1).tolist(), name
        assert torch.equal(one.weight_TLM, run.weight_BTLM[0, len(PROMPTS[0]) - 1 :]), name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_prompt_has_a_part_in_anothers_continuation(shape):
    backbone, router = toy_backbone(**shape), toy_router("random", THREE)
    draws = {"most": 8, "sampling": Sampling(temperature=1.5, repetition_penalty=1.3), "seed": 3}
    together = generate(backbone, router, PROMPTS, sequences=[4, 11, 8], **draws)
    backwards = generate(backbone, router, PROMPTS[::-1], sequences=[8, 11, 4], **draws)[::-1]
    for prompt, sequence, one, turned in zip(PROMPTS, [4, 11, 8], together, backwards, strict=True):
        alone = generate(backbone, router, [prompt], sequences=[sequence], **draws)[0]
        assert one.tokens == alone.tokens == turned.tokens
        assert torch.equal(one.weight_TLM, alone.weight_TLM)


def test_draws_depend_on_seed_and_sequence_and_repeat():
    backbone, router = toy_backbone(), toy_router("softmax_budget")
    write = lambda **about: [one.tokens for one in generate(backbone, router, [[3, 4]] * 3, 12, **about)]  # noqa: E731
    first = write(seed=1)
    state = torch.get_rng_state()
    torch.manual_seed(99)
    assert first == write(seed=1)
    assert len({*map(tuple, first + write(seed=2))}) == 6
    torch.set_rng_state(state)
    assert write(seed=1, sequences=[2, 1, 2]) == [first[2], first[1], first[2]]
    assert torch.equal(state, torch.get_rng_state())  # nothing is drawn from torch's generator


# Memory and steps


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("padding", [0, 3])
def test_memory_that_is_allocated_once_holds_what_copies_hold_and_stays_where_it_is(shape, padding):
    backbone, router = toy_backbone(**shape), toy_router("random", THREE)
    tokens_BT = random_tokens(2, 12)
    tokens_BT[0, :padding] = -1
    decoder, copied, places = Decoder(backbone, router, torch.arange(2), 12), None, set()
    for start, stop in [(0, 5), *((at, at + 1) for at in range(5, 12))]:
        run = decoder.read(tokens_BT[:, start:stop])
        trial = Trial(backbone, tokens_BT[:, :stop], None, torch.arange(2))
        with torch.no_grad():
            copied = route_and_run(backbone, router, trial, copied, start)
        for ours, theirs in zip(run.keys_values, copied.keys_values, strict=True):
            assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
        assert torch.equal(run.logits_BTV, copied.logits_BTV)
        assert torch.equal(run.weight_BTLM, copied.weight_BTLM)
        places.add(tuple(part.data_ptr() for pair in run.keys_values for part in pair))
        assert all(isinstance(pair, Room) for pair in run.keys_values)
    assert len(places) == 1


def test_more_than_there_is_room_for_comes_out_all_the_same():
    backbone, router, tokens_BT = toy_backbone(), toy_router("random", THREE), random_tokens(1, 9)
    decoder, logits = Decoder(backbone, router, torch.arange(1), 6), []
    for tokens_BS in tokens_BT.split([4, 1, 2, 1, 1], dim=1):
        logits.append(decoder.read(tokens_BS).logits_BTV)
    whole = whole_pass(backbone, router, tokens_BT[0].tolist())
    assert torch.allclose(torch.cat(logits, dim=1), whole.logits_BTV, atol=1e-5)


def test_two_continuations_of_one_run_leave_each_other_alone():
    backbone, router, tokens_BT = toy_backbone(), toy_router("random", THREE), random_tokens(1, 9)
    other_BT = (tokens_BT + 1) % 64
    decoder = Decoder(backbone, router, torch.arange(1), 9)
    middle = decoder.read(tokens_BT[:, :4])
    first = decoder.read(tokens_BT[:, 4:7])
    for before, tokens_BS in ((middle, other_BT[:, 4:]), (first, tokens_BT[:, 7:]), (middle, tokens_BT[:, 4:])):
        decoder.run = before
        run = decoder.read(tokens_BS)
        whole = whole_pass(backbone, router, run.tokens_BT[0].tolist())
        for ours, theirs in zip(run.keys_values, whole.keys_values, strict=True):
            assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("budget", [TWO, THREE])
def test_steps_decide_as_a_whole_pass_does_and_give_its_logits(shape, budget):
    backbone, tokens_BT = toy_backbone(**shape), random_tokens(4, 14)
    for row in range(4):
        tokens_BT[row, :row] = -1
    for name in ("softmax_budget", "surrogate", "random"):
        found = compare_with_whole_pass(backbone, toy_router(name, budget), tokens_BT, 6)
        assert not found.broken_BTL.any()
        assert found.logits < 1e-5
        assert len(found.route_BTL.unique()) > 1


class NearTie(Router):
    """Big where a number of the stream is at least that of one token, which single steps take for a bit more."""

    more = 1e-7

    def route(self, trial):
        def gate(x_BSD, layer):
            if x_BSD.shape[1] == 14 and layer == 1 and not hasattr(self, "least"):
                self.least = float(x_BSD[1, 9, 3])
            least = self.least + self.more * (x_BSD.shape[1] == 1) if layer == 1 else 0
            return one_hot(1 + (x_BSD[..., 3] >= least).long())

        return gate


class NoTie(NearTie):
    more = 1e-1


def test_a_flip_at_a_near_tie_is_counted_and_told_from_one_with_a_margin():
    backbone, tokens_BT = toy_backbone(), random_tokens(2, 14)
    near, far = (compare_with_whole_pass(backbone, kind(Spec(3, 16, TWO)), tokens_BT, 6) for kind in (NearTie, NoTie))
    assert near.flipped_BTL.nonzero().tolist() == [[1, 9, 1]]
    assert not near.broken_BTL.any()
    assert far.flipped_BTL[1, 9, 1]
    assert far.broken_BTL.any()


# How tokens are drawn


def plain(logits, seen, sampling):
    """The probabilities of each token, by the definitions, one number after another; None near an edge."""
    numbers = [
        (x / sampling.repetition_penalty if x > 0 else x * sampling.repetition_penalty) if token in seen else x
        for token, x in enumerate(logits)
    ]
    numbers = [x / sampling.temperature for x in numbers]
    kept = {*range(len(numbers))}
    if sampling.top_k is not None:
        kth = sorted(numbers)[-min(sampling.top_k, len(numbers))]
        kept = {token for token in kept if numbers[token] >= kth}
    weight = {token: math.exp(numbers[token] - max(numbers)) for token in kept}
    total, before = sum(weight.values()), 0.0
    for token in sorted(kept, key=lambda token: (-numbers[token], token)):
        if abs(before / total - sampling.top_p) < 1e-9:
            return None
        if sampling.top_p < 1 and before / total >= sampling.top_p:
            kept.discard(token)
        before += weight[token]
    highest = max(weight.values())
    if any(abs(weight[token] / highest - sampling.min_p) < 1e-9 for token in kept):
        return None
    kept = {token for token in kept if weight[token] >= sampling.min_p * highest}
    total = sum(weight[token] for token in kept)
    return [weight[token] / total if token in kept else 0.0 for token in range(len(numbers))]


SAMPLINGS = st.builds(
    Sampling,
    repetition_penalty=st.floats(0.5, 2.0),
    temperature=st.floats(0.05, 5.0),
    top_k=st.none() | st.integers(1, 12),
    top_p=st.floats(0.01, 1.0),
    min_p=st.floats(0.0, 0.9),
)
# equal, or well apart: in between, rounding decides which is likelier
LOGITS = st.lists(st.integers(-96, 96).map(lambda eighths: eighths / 8), min_size=2, max_size=9)


@QUICK
@given(LOGITS, st.sets(st.integers(0, 8)), SAMPLINGS)
def test_probabilities_are_those_of_a_plain_reference(logits, seen, sampling):
    expected = plain(logits, seen, sampling)
    if expected is None:
        return
    seen_1V = torch.tensor([[token in seen for token in range(len(logits))]])
    found_1V = sampling.probabilities(torch.tensor([logits]), seen_1V)
    torch.testing.assert_close(found_1V[0], torch.tensor(expected).double(), atol=1e-6, rtol=1e-6)


@QUICK
@given(st.integers(0, 10_000), SAMPLINGS)
def test_tokens_that_may_be_drawn_are_those_of_hugging_face(seed, sampling):
    from transformers import generation as hf

    torch.manual_seed(seed)
    logits_BV, ids_BT = torch.randn(3, 20).double() * 4, torch.randint(20, (3, 5))
    warpers = [hf.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)]
    warpers.append(hf.TemperatureLogitsWarper(sampling.temperature))
    warpers += [hf.TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    warpers += [hf.TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    warpers += [hf.MinPLogitsWarper(sampling.min_p)] if sampling.min_p else []
    theirs_BV = logits_BV
    for warper in warpers:
        theirs_BV = warper(ids_BT, theirs_BV)
    seen_BV = torch.zeros(3, 20, dtype=torch.bool).scatter(1, ids_BT, True)
    torch.testing.assert_close(sampling.probabilities(logits_BV, seen_BV), theirs_BV.softmax(1), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.6, top_k=6, min_p=0.05)])
def test_tokens_are_drawn_as_often_as_their_probabilities_say(sampling):
    torch.manual_seed(0)
    draws, logits_1V = 20_000, torch.randn(1, 12) * 2
    seen_1V = torch.zeros(1, 12, dtype=torch.bool)
    probability_V = sampling.probabilities(logits_1V, seen_1V)[0]
    uniform_N = draw(5, torch.arange(draws), torch.arange(draws) % 7)
    count_V = sampling.choose(logits_1V.expand(draws, -1), seen_1V.expand(draws, -1), uniform_N).bincount(minlength=12)
    assert not count_V[probability_V == 0].any()
    likely_V = probability_V * draws >= 5
    expected = torch.cat((probability_V[likely_V], probability_V[~likely_V].sum()[None])) * draws
    observed = torch.cat((count_V[likely_V], count_V[~likely_V].sum()[None]))
    if not expected[-1]:
        expected, observed = expected[:-1], observed[:-1]
    assert chisquare(observed, expected).pvalue > 0.001


def test_what_is_written_is_drawn_from_the_backbones_own_distribution():
    backbone, router = toy_backbone(vocabulary=8), toy_router("fixed")
    probability_V = whole_pass(backbone, router, [1, 2, 3]).logits_BTV[0, -1].double().softmax(-1)
    written = generate(backbone, router, [[1, 2, 3]] * 2000, 1, seed=7)
    count_V = torch.tensor([one.tokens[0] for one in written]).bincount(minlength=8)
    assert chisquare(count_V, probability_V / probability_V.sum() * 2000).pvalue > 0.001


@given(st.sampled_from([0.0, 1e-300, 1e-8]), LOGITS)
def test_no_temperature_is_too_low(temperature, logits):
    sampling, seen_1V = Sampling(temperature=temperature, repetition_penalty=1e300), torch.zeros(1, len(logits)).bool()
    token_1 = sampling.choose(torch.tensor([logits]), seen_1V, torch.tensor([0.999]))
    assert max(logits) - logits[token_1] < 1e-6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": -1.0}, "temperature=-1.0 must be 0"), ({"temperature": math.inf}, "temperature=inf"),
        ({"top_k": 0}, "top_k=0 must be 1 or more"), ({"top_p": 0.0}, "top_p=0.0 must be more than 0"),
        ({"top_p": 1.5}, "top_p=1.5"), ({"top_p": math.nan}, "top_p=nan"), ({"min_p": -0.1}, "min_p=-0.1 must be from"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0 must be more than 0"),
    ],
)  # fmt: skip
def test_impossible_sampling_is_named(options, said):
    with pytest.raises(ValueError, match=said):
        Sampling(**options)


# Where a text ends


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


# Bad input


@pytest.mark.parametrize(
    ("prompts", "about", "said"),
    [
        ([], {}, "there is no prompt"), ("abc", {}, "is one text: give a list"), ([[]], {}, "prompt 0 is empty"),
        ([[1], [2, 64]], {}, "prompt 1 holds the unknown token 64 at place 1: the backbone knows 0 to 63"),
        ([[-1]], {}, "unknown token -1"), (["abc"], {}, "give a tokenizer"), ([[1]], {"most": 0}, "most=0"),
        ([[1]], {"stop": ["a"]}, "needs a tokenizer"), ([[1]], {"stop": "a"}, "must be a list"),
        ([[1]], {"stop_tokens": [99]}, "stop_tokens holds the unknown token 99"), ([[1]], {"seed": -1}, "seed=-1"),
        ([[1]], {"sequences": [1, 2]}, "must name 1 sequences"),
        ([[1], [1] * 60], {"most": 6}, "prompt 1 has 60 tokens, and 6 more .* at most backbone.positions=64"),
    ],
)  # fmt: skip
def test_what_cannot_be_continued_is_told_before_any_work(prompts, about, said):
    with pytest.raises(ValueError, match=said):
        stream(toy_backbone(family="opt"), toy_router("random"), prompts, **about)


def test_a_prompt_may_fill_the_positions_to_the_last():
    assert len(generate(toy_backbone(family="opt"), toy_router("random"), [[1] * 60], 5)[0].tokens) == 5
    assert len(generate(toy_backbone(), toy_router("random"), [[1] * 70], 5)[0].tokens) == 5  # llama has no limit


def test_a_bound_cannot_write_nor_a_router_of_another_shape():
    for router in (toy_router("oracle"), toy_router("best_of_random"), Informed(Spec(3, 16, TWO))):
        with pytest.raises(ValueError, match="consults the labels of the tokens it routes"):
            generate(toy_backbone(), router, [[1]], 2)
    with pytest.raises(ValueError, match="made for 3 layers of width 16, the backbone has 4 of 16"):
        generate(toy_backbone(layers=4), toy_router("random"), [[1]], 2)


def test_damaged_weights_are_told():
    backbone = toy_backbone()
    with torch.no_grad():
        backbone.norm.weight.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="not numbers"):
        generate(backbone, toy_router("random"), [[1]], 2)


def test_a_gate_that_only_replays_serves_as_a_router_too():
    class Given(Router):
        def route(self, trial):
            return replay(random_route(len(trial.tokens_BT), trial.tokens_BT.shape[1], 3))

    assert len(generate(toy_backbone(), Given(Spec(3, 16, TWO)), [[1, 2]], 3)[0].tokens) == 3
