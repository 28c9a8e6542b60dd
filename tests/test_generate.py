"""Generation: what is written under every deployable router, and what cannot be continued."""

import math

import pytest
import torch
from conftest import random_route, random_tokens, toy_backbone
from toy_texts import CODE, Informed, toy_tokenizer

from duo import Budget, Router, Spec, Trial, one_hot, replay
from duo.backbone.flops import run_flops
from duo.backbone.room import Room
from duo.data.windows import tokenize
from duo.inference import Decoder, Sampling, compare_with_whole_pass, generate, stream
from duo.inference.prompts import encode_prompts
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


def test_every_module_is_left_in_the_mode_that_it_was_in():
    backbone, router = toy_backbone().train(), toy_router("softmax_budget").train()
    backbone.block(1).eval(), router.heads.eval()
    parts = [*backbone.modules(), *router.modules()]
    before = [part.training for part in parts]
    coming = stream(backbone, router, PROMPTS, 3, GREEDY)
    for _ in range(4):  # in the middle of it too
        next(coming)
        assert [part.training for part in parts] == before
    trained, evaluated = (
        generate(backbone.train(mode), router.train(mode), PROMPTS, 3, GREEDY) for mode in (True, False)
    )
    assert [one.tokens for one in trained] == [one.tokens for one in evaluated]
    assert all(((one.weight_TLM == 0) | (one.weight_TLM == 1)).all() for one in trained)  # hard: those of eval mode
    router.train()
    with pytest.raises(ValueError, match="consults the labels"):
        generate(backbone, Informed(Spec(3, 16, TWO)), [[1]], 2)
    compare_with_whole_pass(backbone, router, random_tokens(1, 4), 2)
    assert router.training
    assert torch.is_grad_enabled()


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


def test_memory_that_is_full_moves_into_twice_as_much_and_few_steps_move_it():
    decoder, places = Decoder(toy_backbone(), toy_router("random", THREE), torch.arange(2), 4), []
    for tokens_BS in random_tokens(2, 40).tensor_split([*range(4, 40)], dim=1):
        pairs = decoder.read(tokens_BS).keys_values
        assert all(isinstance(pair, Room) for pair in pairs)
        places.append(pairs[1][0].data_ptr())
    assert len({*places}) == 1 + 4  # 4, then 9, 19, 39, 79 positions


def test_gradients_go_through_passes_behind_what_a_decoder_has_read():
    backbone, tokens_BT, gradients = toy_backbone(), random_tokens(2, 9), []
    decoder = Decoder(backbone, toy_router("random"), torch.arange(2), 9)
    read = decoder.read(tokens_BT[:, :4])
    with torch.no_grad():
        copied = backbone(tokens_BT[:, :4], replay(read.weight_BTLM.argmax(-1)))
    for run in (read, copied):
        middle = backbone(tokens_BT[:, 4:7], replay(random_route(2, 3, 3)), run, 4)
        last = backbone(tokens_BT[:, 7:], replay(random_route(2, 2, 3)), middle, 7)
        loss = middle.logits_BTV.square().sum() + last.logits_BTV.square().sum()
        gradients.append(torch.autograd.grad(loss, [*backbone.parameters()]))
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    assert torch.equal(decoder.read(tokens_BT[:, 4:]).tokens_BT, tokens_BT)


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


# Bad input


@pytest.mark.parametrize(
    ("prompts", "about", "said"),
    [
        ([], {}, "there is no prompt"), ("abc", {}, "is one text: give a list"), ([[]], {}, "prompt 0 is empty"),
        ([[1], [2, 64]], {}, "prompt 1 holds the unknown token 64 at place 1: the backbone knows 0 to 63"),
        ([[-1]], {}, "unknown token -1"), (["abc"], {}, "give a tokenizer"), ([[1]], {"most": 0}, "most=0"),
        ([[1]], {"stop": ["a"]}, "needs a tokenizer"), ([[1]], {"stop": "a"}, "must be a list"),
        ([[1]], {"stop_tokens": [99]}, "stop_tokens holds the unknown token 99"), ([[1]], {"seed": -1}, "seed=-1"),
        ([[1]], {"sequences": [1, 2]}, "must name 1 sequences"), ([[1.5]], {}, r"prompt 0 is \[1.5\]: give a text, or"),
        ([5, 6], {}, "prompt 0 is 5: give a text, or a list of tokens' ids"), ([["a"]], {}, "prompt 0 is .'a'.: give"),
        ([[1], [1] * 60], {"most": 6}, "prompt 1 has 60 tokens, and 6 more .* at most backbone.positions=64"),
    ],
)  # fmt: skip
def test_what_cannot_be_continued_is_told_before_any_work(prompts, about, said):
    with pytest.raises(ValueError, match=said):
        stream(toy_backbone(family="opt"), toy_router("random"), prompts, **about)


def test_a_text_that_is_no_unicode_is_named():
    with pytest.raises(ValueError, match=r"prompt 0 is no text in Unicode: '\\udcff' at 2"):
        generate(toy_backbone(vocabulary=330), toy_router("random"), ["ab\udcff"], tokenizer=toy_tokenizer())


def test_a_text_has_the_tokens_of_a_document():
    texts = [CODE, CODE * 400, "<|endofdocument|> é"]  # the second in pieces
    assert encode_prompts(texts, toy_tokenizer()) == [tokenize(toy_tokenizer(), text).id_N.tolist() for text in texts]


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
