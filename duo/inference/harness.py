"""A backbone under its router as a model of lm-eval (EleutherAI's evaluation harness): what tasks ask, it answers.

What is asked with one context is read with that context once. Random routes depend on the question alone, and a route
on what stands in front of its token: how questions are put into batches changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tokenizers import Tokenizer
from torch import Tensor

from duo.backbone import Backbone, Run
from duo.data.tokenizer import begin_token, end_token, tokenizer_digest
from duo.inference.decoder import Decoder
from duo.inference.generate import stream
from duo.inference.prompts import pad
from duo.inference.sampling import Sampling
from duo.progress import track
from duo.routing.router import Router

WRITTEN = 256  # tokens of an answer where the task says nothing, as in lm-eval
Answer = tuple[float, bool]
"""The log-probability of a continuation in nats, and whether each of its tokens is the likeliest one."""
Asked = tuple[tuple[int, ...], tuple[int, ...]]
"""A context's tokens, of which there is at least one, and a continuation's."""


class DuoLM(TemplateLM):  # type: ignore[misc]
    """Answers the requests of lm-eval.

    Args:
        backbone: the model.
        router: a deployable one; all big is the router `fixed` with that pattern.
        tokenizer: the model's.
        batch_size: contexts that are read at once.
        seed: of the router's draws.
    """

    def __init__(
        self, backbone: Backbone, router: Router, tokenizer: Tokenizer, batch_size: int = 8, seed: int = 0
    ) -> None:
        super().__init__()
        self.duo = backbone, router
        self.batch_size, self._seed, self._digest = batch_size, seed, tokenizer_digest(tokenizer)
        # tasks spell special tokens where they mean them, as chat templates do: not so documents
        self._tokenizer, end = Tokenizer.from_str(tokenizer.to_str()), end_token(tokenizer)
        assert end is not None
        begin = begin_token(tokenizer)
        self._end, self._prefix = end, end if begin is None else begin
        self._device = backbone.embedding.weight.device

    @property
    def eot_token_id(self) -> int:
        """The token that ends a document."""
        return self._end

    @property
    def prefix_token_id(self) -> int:
        """The token in front of what has no context: what begins a text, else the end of another."""
        return self._prefix

    @property
    def max_length(self) -> int:
        """Tokens that are read at most."""
        config = self.duo[0].config
        return int(min(config.limit[0], config.positions))

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """A text's tokens, with those that the tokenizer puts around it unless told otherwise."""
        around = not string.startswith(self._begin) if add_special_tokens is None else add_special_tokens
        return self._tokenizer.encode(string, add_special_tokens=around).ids

    @property
    def _begin(self) -> str:
        """The token that the tokenizer puts in front of a text; where there is none, what no text begins with."""
        first = self._tokenizer.encode("", add_special_tokens=True).ids[:1]
        return str(self._tokenizer.id_to_token(first[0])) if first else "\0"

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[Answer]:  # what TemplateLM asks when it has tokenized
        asked = [self._cut(context, continuation) for _, context, continuation in requests]
        answers: dict[Asked, Answer] = {}
        for group in track([*self._groups(asked)], "batch of questions"):
            answers |= self._score(group)
        found = [answers[each] for each in asked]
        for request, answer in zip(requests, found, strict=True):
            if request[0] is not None:
                self.cache_hook.add_partial("loglikelihood", request[0], answer)
        return found

    def _cut(self, context: Sequence[int], continuation: Sequence[int]) -> Asked:
        """What fits of a context, its end; raises ValueError where a continuation does not fit."""
        if len(continuation) > self.max_length:
            raise ValueError(
                f"a task asks for a continuation of {len(continuation)} tokens, and the backbone reads at most "
                f"{self.max_length}: choose another task"
            )
        room = self.max_length + 1 - max(len(continuation), 1)  # a text may change no token of the context
        return tuple(context[-room:]), tuple(continuation)

    def _groups(self, asked: Sequence[Asked]) -> Iterator[dict[tuple[int, ...], list[Asked]]]:
        """What is asked, by context, at most so many contexts at a time; contexts of about a length together.

        The longest context and the longest continuation of a group are read together, and must fit.
        """
        by_context: dict[tuple[int, ...], list[Asked]] = {}
        for each in dict.fromkeys(asked):
            by_context.setdefault(each[0], []).append(each)
        group: dict[tuple[int, ...], list[Asked]] = {}
        longest = 0
        for context in sorted(by_context, key=lambda context: (-len(context), context)):
            own = max(len(continuation) for _, continuation in by_context[context])
            first = next(iter(group), context)  # the longest of the group's contexts
            if len(group) == self.batch_size or len(first) + max(longest, own) - 1 > self.max_length:
                yield group
                group, longest = {}, 0
            group[context], longest = by_context[context], max(longest, own)
        if group:
            yield group

    def _score(self, group: dict[tuple[int, ...], list[Asked]]) -> dict[Asked, Answer]:
        """The answers to what is asked with some contexts."""
        asked = [each for some in group.values() for each in some]
        rows = [row for row, some in enumerate(group.values()) for _ in some]
        ids = _sequence_ids(asked, group)
        if len({*ids}) == len(group):  # a context's choices share its routes
            first = self._reader([ids[rows.index(row)] for row in range(len(group))])
            run = _chosen(first.read(pad([*group], self._device)), rows)
        else:
            run = self._reader(ids).read(pad([context for context, _ in asked], self._device))
        last_NV = run.head.select(slice(None), slice(-1, None)).logits()
        longest = max(len(continuation) for _, continuation in asked) - 1
        if longest > 0:  # below it a continuation added no token
            rest_NS = torch.zeros(len(asked), longest, dtype=torch.long, device=self._device)
            for row, (_, continuation) in enumerate(asked):
                rest_NS[row, : len(continuation[:-1])] = torch.tensor(continuation[:-1], dtype=torch.long)
            reader = self._reader(ids)
            reader.run = run
            # behind a short continuation stand tokens that nothing in front of them sees
            last_NV = torch.cat((last_NV, reader.read(rest_NS).logits_BTV), dim=1)
        return {each: _answer(logits_SV, each[1]) for each, logits_SV in zip(asked, last_NV, strict=True)}

    def _reader(self, ids: Sequence[int]) -> Decoder:
        backbone, router = self.duo
        sequence_B = torch.tensor(ids, device=self._device)
        return Decoder(backbone, router, sequence_B, 0, seed=self._seed, tokenizer=self._digest)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of whole texts, in nats, read in windows without overlap."""
        found = []
        for (text,) in (request.args for request in track(requests, "text")):
            windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
            pairs = [(None, *make_disjoint_window(window)) for window in windows]
            found.append(sum(answer for answer, _ in self._loglikelihood_tokens(pairs)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What is written behind contexts, up to a stop string."""
        return [self._write(*request.args) for request in track(requests, "question")]

    def _write(self, context: str, told: dict[str, Any]) -> str:
        asked = normalize_gen_kwargs(told, WRITTEN)
        most = asked["max_gen_toks"]
        if most >= self.max_length:
            raise ValueError(
                f"a task asks for max_gen_toks={most} tokens, and the backbone reads at most {self.max_length} with "
                "the question: choose another task"
            )
        ids = self.tok_encode(context)[-(self.max_length - most) :] or [self.prefix_token_id]
        stops = [each for each in (*asked["until"], self._tokenizer.id_to_token(self._end)) if each]
        written, text = list[int](), ""
        for one in stream(
            *self.duo, [ids], most, _sampling({**asked}), tokenizer=self._tokenizer, stop_tokens=[self._end],
            seed=self._seed, sequences=[_number(ids)],
        ):  # fmt: skip
            written.append(one.token)
            # whole, as tokenizers decode it: the first word without its space, bytes that are no character as they will
            text = whole = self._tokenizer.decode(written)
            for stop in stops:
                text = text.split(stop)[0]
            if text != whole:
                break
        self.cache_hook.add_partial("generate_until", (context, told), text)
        return text


def _sampling(told: dict[str, Any]) -> Sampling:
    """How a task wants tokens drawn: the likeliest always, unless it says `do_sample` or a temperature."""
    if not told["do_sample"]:
        return Sampling(temperature=0.0)
    top_k = told.get("top_k") or None  # 0, as transformers has it: among all tokens
    return Sampling(temperature=told.get("temperature", 1.0), top_k=top_k, top_p=told.get("top_p", 1.0))


def _sequence_ids(asked: Sequence[Asked], group: dict[tuple[int, ...], list[Asked]]) -> list[int]:
    """Ids that random routes depend on: of contexts, so that choices share them; of all where that is one token."""
    return [_number(context if len(context) > 1 else context + continuation) for context, continuation in asked]


def _number(tokens: Sequence[int]) -> int:
    """A number of 62 bits that tokens always have."""
    return int.from_bytes(hashlib.sha256(np.array(tokens, dtype=np.int64).tobytes()).digest()[:8], "big") >> 2


def _chosen(run: Run, rows: Sequence[int]) -> Run:
    """Some rows of a run, in that order, as often as they are named."""
    index = torch.tensor(rows, device=run.tokens_BT.device)
    pairs = [tuple(part[index] for part in pair) for pair in run.keys_values]
    return Run(run.tokens_BT[index], run.head.select(index), run.weight_BTLM[index], pairs)  # type: ignore[arg-type]


def _answer(logits_SV: Tensor, continuation: Sequence[int]) -> Answer:
    """What a continuation's tokens have of the logits in front of them."""
    target_S = torch.tensor(continuation, dtype=torch.long, device=logits_SV.device)
    log_SV = logits_SV[: len(continuation)].float().log_softmax(dim=-1)
    likeliest = bool((log_SV.argmax(dim=-1) == target_S).all())
    return float(log_SV.gather(1, target_S[:, None]).sum()), likeliest
