"""The duo backbone: embedding, layers, head; and the run that one pass leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duo.backbone.attention import Places
from duo.backbone.block import Block, Gate
from duo.backbone.budget import routed_layers
from duo.backbone.config import BIG, MODULES, BackboneConfig
from duo.backbone.dense import PLAIN
from duo.backbone.head import Head
from duo.backbone.room import Pair, keep
from duo.backbone.rotary import rotation
from duo.backbone.watch import watcher

PADDING = -1


def count_positions(tokens_BT: Tensor) -> Tensor:
    """position_BT, counted from the first real token; negative for padding."""
    padding_B1 = (tokens_BT == PADDING).sum(1, keepdim=True)
    return torch.arange(tokens_BT.shape[1], device=tokens_BT.device) - padding_B1


class Run(NamedTuple):
    """What one pass leaves behind; given as `context`, the start of the next."""

    tokens_BT: Tensor
    """The tokens of all positions from 0 on; -1 is left padding."""
    head: Head
    """What predicts at this pass's own positions."""
    weight_BTLM: Tensor
    """What the gate really said of the layers that are routed; 0 for padding."""
    keys_values: list[Pair]
    """Per layer the keys and values, after rotation, (B, H, T, K) each; H counts key/value heads."""

    @property
    def logits_BTV(self) -> Tensor:
        """Logits of this pass's own positions; where they are large they are made anew whenever they are asked for."""
        return self.head.logits()

    def with_logits(self, logits_BTV: Tensor) -> Run:
        """The same with other logits."""
        return self._replace(head=self.head._replace(made_BSV=logits_BTV))


class Backbone(nn.Module):
    """A decoder whose every layer holds a big and a small FFN, chosen by a gate (section 2 of the paper).

    Two families share one block: `llama` (section 3.1) and `opt` (appendix A). A gate is asked about the `routed`
    layers, and numbers these from 0 on; those that `pin` names always run their big FFN, and no gate or search
    sees them.

    >>> backbone = Backbone(BackboneConfig(layers=2, width=8, big=16, small=4, vocabulary=32))
    >>> all_big = lambda x_BSD, layer: torch.tensor([0.0, 0.0, 1.0]).expand(*x_BSD.shape[:2], 3)
    >>> run = backbone(torch.zeros(1, 5, dtype=torch.int64), all_big)
    >>> run.logits_BTV.shape, run.weight_BTLM.shape
    (torch.Size([1, 5, 32]), torch.Size([1, 5, 2, 3]))
    """

    routed: list[int]  # layers about which a gate is asked

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.routed = [*range(config.layers)]
        self.dense = PLAIN  # how the dense parts of a pass are run; searches run them as they stand
        llama = config.family == "llama"
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = None if llama else nn.Embedding(config.positions, config.width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = (nn.RMSNorm if llama else nn.LayerNorm)(config.width, eps=config.norm_epsilon)
        self.head = None if config.tied else nn.Linear(config.width, config.vocabulary, bias=False)
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        """Normal weights of deviation 0.02, smaller where 2L of them add up in the residual stream (as in GPT-2)."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        # apply visits children first: this overwrites what their own visit gave them
        if isinstance(module, Block):
            for last in (module.attention.output, module.ffn.small.down, module.ffn.big.down):
                self._initialise_last(last)

    def _initialise_last(self, last: nn.Linear) -> None:
        nn.init.normal_(last.weight, std=0.02 / (2 * self.config.layers) ** 0.5)

    def initialise_small(self) -> None:
        """Draws the small FFNs alone, in memory on the CPU, as a new backbone's: the rest has its weights."""
        for layer in range(self.config.layers):
            small = self.block(layer).ffn.small.to_empty(device="cpu")
            small.apply(self._initialise)
            self._initialise_last(small.down)

    def pin(self, pinned: Sequence[int]) -> Backbone:
        """Routes all layers but these, whatever was pinned before; returns itself.

        Raises:
            ValueError: a layer is not there, or none is left.
        """
        self.routed = routed_layers(self.config.layers, pinned)
        return self

    def forward(self, tokens_BT: Tensor, gate: Gate, context: Run | None = None, start: int = 0) -> Run:
        """One pass over `tokens_BT`, whose token i stands at position `start + i`.

        For every earlier position that `context` holds, a token attends to the context's keys and values; for the
        others, and for itself, to this pass's own. So `start=0` with a context scores a change to every position at
        once, each among the others' earlier choices, and `start` = the context's length is cached decoding.

        Args:
            tokens_BT: token ids; -1 is left padding, attended by none and given to no module.
            gate: the weights of (skip, small, big) per token, asked once a layer.
            context: an earlier run of the same sequences.
            start: position of the first token, at most the context's length.

        Returns:
            A run that covers positions 0 to start+S in tokens, weights, keys and values: the context's part before
            `start`, this pass's after it. `logits_BTV` are this pass's S only; of a large vocabulary the pass ends
            before the head, and `logits_BTV` makes them (`duo.routing.loss.run_loss` needs them a part at a time).

        Raises:
            ValueError: a gap between context and start, a context from other tokens, padding that is not on the left,
                a sequence longer than an `opt` model's positions or a model's window, or a gate of the wrong shape or
                that writes into what it is shown.
        """
        run = partial(self._run, tokens_BT, context=context, start=start)
        # here, and not where routers are given passes: whoever has got hold of the model pays as well
        if (watching := watcher()) is None:
            return run(gate)
        # what is charged by the pass's formula happens within it: the head too
        return watching.charge_pass(self, start, gate, partial(run, whole=True))

    def _run(self, tokens_BT: Tensor, gate: Gate, context: Run | None, start: int, whole: bool = False) -> Run:
        _check_context(tokens_BT, context, start)
        all_tokens_BT = tokens_BT if context is None else torch.cat((context.tokens_BT[:, :start], tokens_BT), dim=1)
        held = 0 if context is None else context.tokens_BT.shape[1]
        places = self.places(all_tokens_BT, start, held)
        x_BSD = self.embed(tokens_BT, places)
        weights, keys_values = list[Tensor](), []
        for layer, block in enumerate(self.blocks):
            past = None if context is None else context.keys_values[layer]
            asked = gate if (routed := layer in self.routed) else _all_big
            x_BSD, weight_BSM, seen = block(x_BSD, asked, len(weights), places, past, self.dense)
            if routed:
                weights.append(weight_BSM)
            keys_values.append(keep(seen, start, held))
        weight_BTLM = torch.stack(weights, dim=2)
        if context is not None:
            weight_BTLM = torch.cat((context.weight_BTLM[:, :start].to(weight_BTLM), weight_BTLM), dim=1)
        return Run(all_tokens_BT, Head.of(self.norm(x_BSD), self.head_weight, whole), weight_BTLM, keys_values)

    def embed(self, tokens_BS: Tensor, places: Places) -> Tensor:
        """The stream that the first layer sees, (B, S, D)."""
        x_BSD = self.embedding(tokens_BS.clamp(min=0))  # padding has no row; what it gets reaches nobody
        if self.position_embedding is None:
            return x_BSD
        return x_BSD + self.position_embedding(places.position_BS.clamp(min=0))

    def block(self, layer: int) -> Block:
        """One layer."""
        block = self.blocks[layer]
        assert isinstance(block, Block)
        return block

    def logits(self, x_BSD: Tensor) -> Tensor:
        """Logits over the vocabulary from the last layer's stream."""
        return F.linear(self.norm(x_BSD), self.head_weight)

    @property
    def head_weight(self) -> Tensor:
        """The output head, (V, D)."""
        return self.embedding.weight if self.head is None else self.head.weight

    def parameter_counts(self) -> dict[str, int]:
        """Parameters of big and small FFNs, attention, embeddings (with position table and untied head), norms."""
        # "attention." with its dot: attention_norm is a norm
        kinds = {"ffn.big": "big", "ffn.small": "small", "attention.": "attention", "norm": "norms"}
        counts = dict.fromkeys(("big", "small", "attention", "embeddings", "norms"), 0)
        for name, parameter in self.named_parameters():
            counts[next((kind for part, kind in kinds.items() if part in name), "embeddings")] += parameter.numel()
        return counts

    def places(self, tokens_BT: Tensor, start: int, held: int) -> Places:
        """Places of the positions from `start` on, in front of which a context holds `held` positions."""
        total = tokens_BT.shape[1]
        position_BT = torch.arange(total, device=tokens_BT.device)[None]
        real_BT = tokens_BT >= 0
        if padded := not bool(real_BT.all()):
            _check_padding(tokens_BT, real_BT)
            position_BT = position_BT - (~real_BT).sum(1, keepdim=True)
        position_BS = position_BT[:, start:]
        most, setting = self.config.limit
        if total > most:
            raise ValueError(f"a sequence of {total} tokens is longer than {setting}={most}")
        # no mask where a triangle or every key will do: with one, torch cannot take its fastest kernels
        plain = not padded and (held == 0 or (start == held and total == start + 1))
        mask_BSU = None if plain else _mask(real_BT, start, held)
        rotation_BSX = None if self.position_embedding is not None else rotation(self.config, position_BS)
        # torch's triangle begins at the first key, and would hide a context from the one new token behind it
        return Places(position_BS, rotation_BSX, mask_BSU, plain and held == 0, real_BT[:, start:] if padded else None)


def _all_big(x_BSD: Tensor, layer: int) -> Tensor:
    """The gate of pinned layers."""
    return F.one_hot(torch.full(x_BSD.shape[:2], BIG, device=x_BSD.device), len(MODULES)).float()


def _mask(real_BT: Tensor, start: int, held: int) -> Tensor:
    """mask_BSU over the context's `held` keys, then the step's own: the rule of `Backbone.forward`."""
    total, device = real_BT.shape[1], real_BT.device
    step_S, past_C = torch.arange(start, total, device=device), torch.arange(held, device=device)
    # a position that the context holds too is seen as it was there, by all but itself
    own_SS = step_S[:, None].eq(step_S) | (step_S[:, None].gt(step_S) & step_S.ge(held))
    past_SC = step_S[:, None].gt(past_C)
    first_B = (~real_BT).sum(1)  # padding is on the left
    mask_BSU = torch.cat((past_SC, own_SS), dim=1) & torch.cat((past_C, step_S)).ge(first_B[:, None])[:, None]
    itself_SU = torch.cat((torch.zeros_like(past_SC), torch.eye(len(step_S), dtype=torch.bool, device=device)), dim=1)
    return mask_BSU | itself_SU  # padding attends to itself: its row is never empty


def _check_context(tokens_BT: Tensor, context: Run | None, start: int) -> None:
    held = 0 if context is None else context.tokens_BT.shape[1]
    if not 0 <= start <= held:
        raise ValueError(f"start={start} leaves a gap: the context holds positions 0 to {held}")
    if context is None:
        return
    if len(context.tokens_BT) != len(tokens_BT):
        raise ValueError(f"the context holds {len(context.tokens_BT)} sequences, the pass {len(tokens_BT)}")
    both = min(held, start + tokens_BT.shape[1])
    different = context.tokens_BT[:, start:both] != tokens_BT[:, : both - start]
    if different.any():
        row, column = different.nonzero()[0].tolist()
        raise ValueError(f"the context was made from other tokens: sequence {row} differs at position {start + column}")


def _check_padding(tokens_BT: Tensor, real_BT: Tensor) -> None:
    if (real_BT[:, :-1] & ~real_BT[:, 1:]).any() or (tokens_BT < PADDING).any():
        raise ValueError(
            f"padding ({PADDING}) must stand on the left of a sequence, and no other token may be negative"
        )
