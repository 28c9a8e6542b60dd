"""`DuoForCausalLM`: a backbone with its router as a model of transformers, which saves, loads and generates it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from duo.backbone import PADDING, Backbone, BackboneConfig, Budget
from duo.inference.decoder import Decoder
from duo.routing import registry
from duo.routing.router import Router, Spec


class DuoConfig(PretrainedConfig):  # type: ignore[misc]
    """What a backbone, its router and its budget are; they become fields of config.json.

    Args:
        backbone: fields of `BackboneConfig`.
        router: the router's name, and options for its constructor.
        budget: fields of `Budget`.
        seed: of the router's draws.
        tokenizer: digest of the tokenizer that the model was trained on; empty where nobody says.
    """

    model_type = "duo"

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        router: dict[str, Any] | None = None,
        budget: dict[str, Any] | None = None,
        seed: int = 0,
        tokenizer: str = "",
        **more: Any,
    ) -> None:
        # transformers makes configs without arguments, to tell what differs from the defaults
        self.backbone = backbone or asdict(BackboneConfig())
        self.router, self.budget = router or {"name": "random"}, budget or {"big": 0}
        self.seed, self.tokenizer = seed, tokenizer
        shape = self.shape
        self.vocab_size, self.hidden_size, self.num_hidden_layers = shape.vocabulary, shape.width, shape.layers
        self.num_attention_heads, self.max_position_embeddings = shape.heads, shape.positions
        # the head is the embedding's weight itself, and no second tensor that transformers would have to tie
        super().__init__(**(more | {"tie_word_embeddings": False}))

    @property
    def shape(self) -> BackboneConfig:
        """The backbone's shape."""
        return BackboneConfig(**self.backbone)

    @property
    def spec(self) -> Spec:
        """What the router is told."""
        budget = Budget(**self.budget)
        counts = budget.of(self.shape.layers)
        return Spec(int(sum(counts)), self.shape.width, counts)


class DuoForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A backbone under its router, in evaluation: hard routes, no labels, one pass a step.

    >>> model = DuoForCausalLM(DuoConfig(asdict(BackboneConfig(layers=2, width=8, vocabulary=32)), budget={"big": 1}))
    >>> model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=4, do_sample=False).shape
    torch.Size([1, 7])
    """

    config_class = DuoConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _is_stateful = True  # what has been read cannot be taken back: no speculation, no beams

    def __init__(self, config: DuoConfig, backbone: Backbone | None = None, router: Router | None = None) -> None:
        super().__init__(config)
        self.backbone = Backbone(config.shape) if backbone is None else backbone
        self.backbone.pin(Budget(**config.budget).pinned)
        self.router = self._new_router() if router is None else router
        self.post_init()

    def _new_router(self) -> Router:
        options = {key: value for key, value in self.config.router.items() if key != "name"}
        # not on meta, as while it is loaded: a router's buffers need not all be saved
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            return registry.build(self.config.router["name"], self.config.spec, options)

    def get_input_embeddings(self) -> nn.Module:
        """The embedding."""
        return self.backbone.embedding

    def _init_weights(self, module: nn.Module) -> None:
        """Buffers that are not saved, which transformers leaves undefined; weights are what they were built with."""
        if module is getattr(self, "router", None):
            saved = module.state_dict()
            for name, value in self._new_router().named_buffers():
                if name not in saved:
                    module.get_buffer(name).copy_(value)

    @classmethod
    def _supports_default_dynamic_cache(cls, *_: Any) -> bool:
        return False  # what has been read is kept with its routes

    @torch.no_grad()
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Decoder | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of tokens behind what was read before.

        Args:
            input_ids: token_BS; all, or those that are not read yet.
            attention_mask: 0 where a token is padding; looked at in front of a sequence alone, for nothing of what
                stands behind a token reaches it.
            past_key_values: what was read before.
            labels: token_BS, as transformers wants them: the inputs themselves, -100 where nothing is scored.
            use_cache: whether what was read is given back.
            logits_to_keep: tokens, the last ones, whose logits are made (0: all, as for a loss).

        Raises:
            ValueError: a router that consults labels, or whatever the router raises.
        """
        tokens_BS = input_ids
        if past_key_values is None:
            if attention_mask is not None:
                tokens_BS = tokens_BS.masked_fill(attention_mask.cumsum(1) == 0, PADDING)
            sequence_B = torch.arange(len(input_ids), device=input_ids.device)
            past_key_values = Decoder(
                self.backbone, self.router, sequence_B, input_ids.shape[1] + 1,
                seed=self.config.seed, tokenizer=self.config.tokenizer,
            )  # fmt: skip
        kept = slice(-logits_to_keep if labels is None else 0, None)  # from -0 on are all
        logits_BSV = past_key_values.read(tokens_BS).head.select(slice(None), kept).logits()
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits_BSV[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(
            loss=loss, logits=logits_BSV, past_key_values=past_key_values if use_cache else None
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: Decoder | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool = True,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> dict[str, Any]:
        """The tokens that are not read yet."""
        read = past_key_values.run.tokens_BT.shape[1] if past_key_values is not None else 0
        return {
            "input_ids": input_ids[:, read:],
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
        }


# transformers' Auto classes know the model now
AutoConfig.register(DuoConfig.model_type, DuoConfig, exist_ok=True)
AutoModelForCausalLM.register(DuoConfig, DuoForCausalLM, exist_ok=True)
