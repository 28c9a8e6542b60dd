"""Generation: what is written under every deployable router, and what cannot be continued."""

import math

import pytest
import torch
from conftest import random_route, random_tokens, toy_backbone
from toy_texts import CODE, Informed, toy_tokenizer

from duo import Budget, Router, Spec, Trial, one_hot, replay
from duo.backbone.flops import run_flops
from duo.data.windows import tokenize
from duo.inference import Sampling, compare_with_whole_pass, generate, stream
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


# Steps


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
