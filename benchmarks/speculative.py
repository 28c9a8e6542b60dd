"""Whether it pays to draft tokens by a cheap route and to verify them in one pass: ratios in one process, alternating.

    OMP_NUM_THREADS=1 python benchmarks/speculative.py [--backbones ...] [--targets ...] [--pairs 5] [--quick]

A backbone is the recipe of a published one, whose prompts are held-out text and code, or the width of a random one,
whose agreement means nothing: there only steps are timed. `pattern` and `routed` spend half of the layers big. Drafts
are as cheap as they can be: one module a layer, no gate, no weights kept, nothing sampled; `lookup` runs no model, and
repeats what came last behind the same two tokens. Greedy, one sequence; each round drafts one token more than went well
in the last (Leviathan et al., 2023, with the model's own cheap route for a draft, as Zhang et al., 2023).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from pairs import Prepare, backbone_of, median_ratio, ratio, time_in_turn
from torch import Tensor

from duo import Backbone, Budget, Router, Spec, Trial, replay
from duo.backbone import BIG, SKIP, SMALL, Run
from duo.backbone.room import Room, extend
from duo.inference import Decoder, Sampling
from duo.recipe import load
from duo.routing.router import route_and_run
from duo.stages.source import backbone_source
from duo.storage.memory import keep_freed_memory
from routers.fixed import Fixed
from routers.random import Random

PROMPT, WRITTEN = 32, 32  # tokens
LONGEST = 8  # draft
CHECKED = (2, 3, 5, 9)  # tokens of a verifying pass that are timed
AGREED = (0.7, 0.8, 0.9, 1.0)  # shares of drafted tokens for which a bound is shown
PUBLISHED = {
    "router_budget6": ["leaderboard.backbone=b1e7093a108313016172ba72d8a66f18524916e915e6cebc9358210b8a1de735"],
    "reference": [],  # names its own
}
DRAFTED = {"small": SMALL, "no FFN": SKIP}

Draft = Callable[[Backbone, Run, int, int], list[int]]
"""draft(backbone, run, last, count) -> so many tokens, at most, behind the last one, which stands behind the run."""


@torch.no_grad()
def step(backbone: Backbone, module: int, token: int, run: Run) -> tuple[int, Run]:
    """The likeliest next token with this module in every layer, and the run behind it: no gate, no weights are kept."""
    token_11, held = torch.tensor([[token]]), run.tokens_BT.shape[1]
    tokens_1T = torch.cat((run.tokens_BT, token_11), dim=1)
    places = backbone.places(tokens_1T, held, held)
    x_11D, keys_values = backbone.embed(token_11, places), []
    for layer, past in enumerate(run.keys_values):
        block = backbone.block(layer)
        normed_11D = block.attention_norm(x_11D)
        keys_values.append(extend(past, block.attention.keys_values(normed_11D, places)))
        x_11D = x_11D + block.attention.attend(normed_11D, *keys_values[-1], places)
        if module != SKIP:
            x_11D = x_11D + block.ffn.of(module)(block.ffn_norm(x_11D))
    return int(backbone.logits(x_11D).argmax()), run._replace(tokens_BT=tokens_1T, keys_values=keys_values)


def by_module(module: int, backbone: Backbone, run: Run, last: int, count: int) -> list[int]:
    """Drafts with one module in every layer, behind the target's own keys and values."""
    drafted: list[int] = []
    for _ in range(count):
        last, run = step(backbone, module, last, run)
        drafted.append(last)
    return drafted


def by_lookup(backbone: Backbone, run: Run, last: int, count: int) -> list[int]:
    """What came last behind the same two tokens; nothing where they are new."""
    tokens = [*run.tokens_BT[0].tolist(), last]
    for at in range(len(tokens) - 3, -1, -1):
        if tokens[at : at + 2] == tokens[-2:]:
            return tokens[at + 2 : at + 2 + count]
    return []


def cut(run: Run, length: int) -> Run:
    """The first positions of a run; what stands behind them in its room is written over."""
    rooms = []
    for pair in run.keys_values:
        assert isinstance(pair, Room)
        pair._memory.used = length
        rooms.append(Room._of(pair._memory, length))
    return run._replace(tokens_BT=run.tokens_BT[:, :length], weight_BTLM=run.weight_BTLM[:, :length], keys_values=rooms)


class Written(NamedTuple):
    """What was written behind a prompt, and how many tokens each round drafted and accepted."""

    tokens: list[int]
    rounds: list[tuple[int, int]]


def speculate(decoder: Decoder, last: int, draft: Draft) -> Written:
    """Greedy tokens behind the decoder's run and a last token."""
    written, count = Written([], []), 2
    while (left := WRITTEN - len(written.tokens)) > 0:
        run, held = decoder.run, decoder.run.tokens_BT.shape[1]
        drafted = draft(decoder.backbone, run, last, min(count, left - 1))
        if drafted:
            decoder.run = cut(run, held)  # the draft's keys and values are none of the target's
        wanted = decoder.read(torch.tensor([[last, *drafted]])).logits_BTV[0].argmax(-1).tolist()
        agreed = next((at for at, token in enumerate(drafted) if token != wanted[at]), len(drafted))
        if agreed < len(drafted):
            decoder.run = cut(decoder.run, held + agreed + 1)
        written.tokens.extend(wanted[: agreed + 1])
        written.rounds.append((len(drafted), agreed))
        last, count = wanted[agreed], min(agreed + 1, LONGEST)
    return written


def decoder_behind(backbone: Backbone, router: Router, prompt: list[int]) -> tuple[Decoder, int]:
    """A decoder that has read a prompt, and the token it writes first."""
    decoder = Decoder(backbone, router, torch.arange(1), len(prompt) + WRITTEN + LONGEST + 2)
    return decoder, int(decoder.read(torch.tensor([prompt])).logits_BTV[0, -1].argmax())


def writing(backbone: Backbone, router: Router, prompts: list[list[int]], draft: Draft, made: list[Written]) -> Prepare:
    """Writes behind every prompt; notes what it made."""

    def prepare() -> Callable[[], object]:
        behind = [decoder_behind(backbone, router, prompt) for prompt in prompts]

        def work() -> None:
            made[:] = [speculate(*one, draft) for one in behind]

        return work

    return prepare


def step_costs(backbone: Backbone, router: Router, prompt: list[int], pairs: int) -> dict[str, float]:
    """What a draft's step and verifying passes of so many tokens cost, as shares of one token's plain step."""
    decoder, last = decoder_behind(backbone, router, prompt)
    base, held = decoder.run, len(prompt)

    def reading(count: int) -> Prepare:
        def prepare() -> Callable[[], object]:
            decoder.run = cut(base, held)
            return lambda: decoder.read(torch.tensor([prompt[:count]]))

        return prepare

    works = {str(count): reading(count) for count in (1, *CHECKED)}
    for name, module in DRAFTED.items():
        works[name] = lambda module=module: partial(step, backbone, module, last, cut(base, held))
    seconds = time_in_turn(works, 3 * pairs)
    return {name: median_ratio(spent, seconds["1"]) for name, spent in seconds.items()}


def bound(costs: dict[str, float], draft: str, agreed: float) -> float:
    """The best share of plain time, over lengths of the draft, if each drafted token is accepted so often.

    >>> round(bound({"small": 0.5, "2": 1.0, "3": 1.0, "5": 1.0, "9": 1.0}, "small", 0.5), 3)  # one: 1.5 for 1.5 tokens
    1.0
    """
    lengths = [count - 1 for count in CHECKED]
    tokens = [sum(agreed**at for at in range(length + 1)) for length in lengths]
    times = [length * costs[draft] + costs[str(length + 1)] for length in lengths]
    return min(time / count for time, count in zip(times, tokens, strict=True))


@torch.no_grad()
def agreement(backbone: Backbone, router: Router, module: int, tokens_BT: Tensor) -> str:
    """How often a draft of one token is accepted, each behind the target's own route of all tokens before it."""
    target = route_and_run(backbone, router, Trial(backbone, tokens_BT))
    route_BTL = torch.full((*tokens_BT.shape, backbone.config.layers), module)
    logits = [run.logits_BTV.flatten(0, 1) for run in (target, backbone(tokens_BT, replay(route_BTL), target, 0))]
    greedy = float((logits[0].argmax(-1) == logits[1].argmax(-1)).double().mean())
    sampling, seen_NV = Sampling(temperature=0.8, top_p=0.95), torch.zeros_like(logits[0], dtype=torch.bool)
    target_NV, draft_NV = (sampling.probabilities(one, seen_NV) for one in logits)
    sampled = float(torch.minimum(target_NV, draft_NV).sum(-1).mean())  # rejection sampling accepts so many
    return f"greedy {greedy:.2f}, at temperature 0.8 and top-p 0.95 {sampled:.2f}"


def measure_steps(costs: dict[str, float]) -> None:
    """Prints what steps cost, and what that allows."""
    print("    shares of a step: " + ", ".join(f"{part} {cost:.2f}" for part, cost in costs.items()))
    for draft in DRAFTED:
        bounds = ", ".join(f"{bound(costs, draft, agreed):.2f} at {agreed}" for agreed in AGREED)
        print(f"    {draft}, of plain time at best, by agreement: {bounds}", flush=True)


def measure_writing(backbone: Backbone, router: Router, texts_BT: Tensor, pairs: int) -> None:
    """Prints how often drafts agree, and writing with them against writing without."""
    for draft, module in DRAFTED.items():
        print(f"    {draft} agrees: {agreement(backbone, router, module, texts_BT)}", flush=True)
    prompts = [row[:PROMPT] for row in texts_BT[[0, -1]].tolist()]
    drafts: dict[str, Draft] = {"plain": lambda *_: [], "small": partial(by_module, SMALL), "lookup": by_lookup}
    made: dict[str, list[Written]] = {name: [] for name in drafts}
    works = {name: writing(backbone, router, prompts, draft, made[name]) for name, draft in drafts.items()}
    seconds = time_in_turn(works, pairs)
    for name in [*drafts][1:]:
        same = [one.tokens for one in made[name]] == [one.tokens for one in made["plain"]]
        rounds = [counts for one in made[name] for counts in one.rounds]
        drafted, accepted = (statistics.mean(part) for part in zip(*rounds, strict=True))
        print(
            f"    {name}: {ratio(seconds[name], seconds['plain'])} of plain time; a round {drafted:.1f} drafted, "
            f"{accepted:.1f} accepted; the same tokens: {same}", flush=True,
        )  # fmt: skip


def targets(backbone: Backbone) -> dict[str, Router]:
    """The routes that are written under."""
    layers = backbone.config.layers
    spec = Spec(layers, backbone.config.width, Budget(layers // 2).of(layers))
    return {"all_big": Fixed(spec, pattern=[BIG] * layers), "pattern": Fixed(spec), "routed": Random(spec)}


def backbone_and_texts(name: str) -> tuple[Backbone, Tensor]:
    """A published backbone with held-out text and code, or a random one with random tokens."""
    if name.isdigit():
        return (backbone := backbone_of(int(name)).eval()), torch.randint(backbone.config.vocabulary, (4, 128))
    recipe = load(name, PUBLISHED[name])
    with TemporaryDirectory() as folder:
        source = backbone_source(recipe)
        data = source.open_data(Path(folder))
        splits = {split: torch.from_numpy(rows).long() for split, rows in data.packed().items()}
        backbone = source.train_or_load(data, torch.device("cpu")).module
    return backbone.eval(), torch.cat([splits[f"holdouts.{kind}"][::50][:4, :-1] for kind in ("text", "code")])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=[*PUBLISHED, "512"])
    parser.add_argument("--targets", nargs="+", default=["all_big", "pattern", "routed"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="steps of the smallest, to see that it runs")
    options = parser.parse_args()
    keep_freed_memory()
    for chosen in ["64"] if options.quick else options.backbones:
        model, texts = backbone_and_texts(chosen)
        for title in options.targets:
            print(f"{chosen}, target {title}")
            target = targets(model)[title]
            measure_steps(step_costs(model, target, texts[0, :PROMPT].tolist(), options.pairs))
            if chosen in PUBLISHED:
                measure_writing(model, target, texts, options.pairs)
