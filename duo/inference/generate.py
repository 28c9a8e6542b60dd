"""Continues prompts under a router's routes, at once or as a stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from duo.backbone import Backbone
from duo.backbone.flops import run_flops
from duo.data.token_text import token_texts
from duo.data.tokenizer import tokenizer_digest
from duo.inference.decoder import Decoder
from duo.inference.prompts import Prompt, check_length, check_tokens, encode_prompts, pad
from duo.inference.sampling import Sampling, draw
from duo.inference.text import Text
from duo.routing.router import Router

LENGTH, TOKEN, STOP = "length", "token", "stop"  # why a continuation ends


class Written(NamedTuple):
    """A token, given as soon as its text is certain; those of one prompt come in order, and all of them come."""

    prompt: int
    """Which of the prompts it continues."""
    token: int
    text: str
    """What it adds to the text; one after another they are the continuation's. Empty without a tokenizer."""
    weight_LM: Tensor
    """Modules of the pass that predicted it: that over the token in front of it."""
    flops: float
    """What that pass cost the backbone, in closed form."""
    ended: str | None = None
    """Of a prompt's last token why: `length`, `token` (a stop token) or `stop` (a stop string)."""


class Continuation(NamedTuple):
    """What was written behind a prompt."""

    tokens: list[int]
    """All of them: a stop token too, and those of a stop string."""
    text: str
    """Without stop token and stop string."""
    weight_TLM: Tensor
    """Modules of the pass that predicted each token."""
    flops_T: list[float]
    """What each of these passes cost the backbone, in closed form."""
    ended: str
    """`length`, `token` (a stop token) or `stop` (a stop string)."""


def generate(
    backbone: Backbone,
    router: Router,
    prompts: Sequence[Prompt],
    most: int = 128,
    sampling: Sampling = Sampling(),  # noqa: B008 # frozen
    *,
    tokenizer: Tokenizer | None = None,
    stop: Sequence[str] = (),
    stop_tokens: Sequence[int] = (),
    seed: int = 0,
    sequences: Sequence[int] | None = None,
) -> list[Continuation]:
    """Continues prompts, all at once; arguments and errors as of `stream`.

    >>> from duo import BackboneConfig, Budget, Spec
    >>> from duo.routing import registry
    >>> backbone = Backbone(BackboneConfig(layers=2, width=8, big=16, small=4, vocabulary=32))
    >>> router = registry.build("fixed", Spec(2, 8, Budget(1).of(2)))
    >>> [len(one.tokens) for one in generate(backbone, router, [[1, 2, 3], [4]], most=5)]
    [5, 5]
    """
    written: list[list[Written]] = [[] for _ in prompts]
    for one in stream(
        backbone, router, prompts, most, sampling,
        tokenizer=tokenizer, stop=stop, stop_tokens=stop_tokens, seed=seed, sequences=sequences,
    ):  # fmt: skip
        written[one.prompt].append(one)
    return [
        Continuation(
            tokens=[one.token for one in row],
            text="".join(one.text for one in row),
            weight_TLM=torch.stack([one.weight_LM for one in row]),
            flops_T=[one.flops for one in row],
            ended=row[-1].ended or LENGTH,
        )
        for row in written
    ]


def stream(
    backbone: Backbone,
    router: Router,
    prompts: Sequence[Prompt],
    most: int = 128,
    sampling: Sampling = Sampling(),  # noqa: B008 # frozen
    *,
    tokenizer: Tokenizer | None = None,
    stop: Sequence[str] = (),
    stop_tokens: Sequence[int] = (),
    seed: int = 0,
    sequences: Sequence[int] | None = None,
) -> Iterator[Written]:
    """Continues prompts and gives every token as it comes.

    A continuation depends on the backbone, the router, its prompt, the sampling, the seed and its sequence's id; not on
    the prompts beside it (but where rounding, which differs between batches, decides between equals).

    Args:
        backbone: the model; it and the router are in eval mode while they read, in their own before and after.
        router: a deployable one: those that consult labels cannot write.
        prompts: texts, or ids of tokens, of any lengths; an empty text begins a document.
        most: tokens to write behind each prompt.
        sampling: how the next token is drawn.
        tokenizer: texts need it.
        stop: strings at whose first occurrence in it a continuation ends, in front of it; they may span tokens.
        stop_tokens: ids of tokens that end a continuation; their text is left out.
        seed: of all draws, the router's too.
        sequences: ids of the prompts, which the draws depend on; by default their places in the list.

    Raises:
        ValueError: before any work: an impossible prompt, an unknown token, a length that the backbone cannot read, or
            a router of another shape; then whatever the router raises.
    """
    config, device = backbone.config, backbone.embedding.weight.device
    ids = encode_prompts(prompts, tokenizer)
    for number, tokens in enumerate(ids):
        check_tokens(tokens, config.vocabulary, f"prompt {number}")
    check_tokens(stop_tokens, config.vocabulary, "stop_tokens")
    _check(most, stop, seed, tokenizer)
    sequences = range(len(ids)) if sequences is None else sequences
    if len(sequences) != len(ids):
        raise ValueError(f"sequences={[*sequences]} must name {len(ids)} sequences, one for each prompt")
    check_length(config, [*map(len, ids)], most)
    prompt_BT = pad(ids, device)
    sequence_B = torch.tensor([*sequences], device=device)
    digest = "" if tokenizer is None else tokenizer_digest(tokenizer)
    decoder = Decoder(backbone, router, sequence_B, prompt_BT.shape[1] + most - 1, seed=seed, tokenizer=digest)
    byte_V = [] if tokenizer is None else token_texts(tokenizer)
    byte_V += [b""] * (config.vocabulary - len(byte_V))  # a tokenizer may know fewer tokens than the backbone
    rows = [_Row(number, most, byte_V, stop_tokens, Text(stop)) for number in range(len(ids))]
    return _write(decoder, prompt_BT, rows, sampling, seed)


def _check(most: int, stop: Sequence[str], seed: int, tokenizer: Tokenizer | None) -> None:
    if most < 1:
        raise ValueError(f"most={most} must be 1 or more tokens")
    if seed < 0:
        raise ValueError(f"seed={seed} must be 0 or more")
    if isinstance(stop, str) or "" in stop:
        raise ValueError(f"stop={stop!r} must be a list of strings, none of them empty")
    if stop and tokenizer is None:
        raise ValueError(f"stop={[*stop]} needs a tokenizer: without one there is no text to look at")


def _write(decoder: Decoder, prompt_BT: Tensor, rows: list[_Row], sampling: Sampling, seed: int) -> Iterator[Written]:
    config, read_BT = decoder.backbone.config, prompt_BT >= 0
    position_B = read_BT.sum(1)  # of the token that is chosen next
    # one column more, for padding
    seen_BX = read_BT.new_zeros(len(rows), config.vocabulary + 1)
    seen_BX.scatter_(1, prompt_BT.masked_fill(~read_BT, config.vocabulary), True)
    tokens_BS = prompt_BT
    while any(row.ended is None for row in rows):
        run = decoder.read(tokens_BS)
        last_BV = run.head.select(slice(None), -1).logits()  # of a whole prompt they may be gigabytes
        uniform_B = draw(seed, decoder.sequence_B, position_B)
        token_B = sampling.choose(last_BV, seen_BX[:, :-1], uniform_B)
        weight_B1LM = run.weight_BTLM[:, -1:].clone()  # a view would keep all of the run, at every token
        flops_B = run_flops(config, weight_B1LM, position_B[:, None] - 1)[:, 0].tolist()
        for row, token, weight_LM, flops in zip(rows, token_B.tolist(), weight_B1LM[:, 0], flops_B, strict=True):
            yield from row.take(Written(row.number, token, "", weight_LM, flops))
        tokens_BS, position_B = token_B[:, None], position_B + 1
        seen_BX.scatter_(1, tokens_BS, True)


@dataclass
class _Row:
    """What one prompt's continuation has come to."""

    number: int
    left: int  # tokens that may still come
    byte_V: list[bytes]
    stop_tokens: Sequence[int]
    text: Text
    ended: str | None = None

    def __post_init__(self) -> None:
        self._waiting = deque[Written]()  # for their text

    def take(self, one: Written) -> Iterator[Written]:
        """What is certain now that this token has come; nothing where the continuation has ended."""
        if self.ended is not None:  # its sequence is read on beside the others, which need not know
            return
        self.left -= 1
        self._waiting.append(one)
        stops = one.token in self.stop_tokens
        last = stops or not self.left
        texts = self.text.add(b"" if stops else self.byte_V[one.token], last)
        if last or self.text.stopped:
            self.ended = STOP if self.text.stopped else TOKEN if stops else LENGTH
        for number, text in enumerate(texts, 1):
            ended = self.ended if number == len(texts) else None
            yield self._waiting.popleft()._replace(text=text, ended=ended)
