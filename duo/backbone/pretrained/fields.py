"""Every field of a model's config.json: each is taken by whoever knows it, and what is left is refused by name.

Names and shapes of tensors may all fit and the logits be wrong: only the fields say so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

HARMLESS = {
    # about the files and about training; duo computes in 32 bits, without dropout
    *(
        "architectures",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "_name_or_path",
        "initializer_range",
        "init_std",
    ),
    *("attention_dropout", "activation_dropout", "dropout", "layerdrop", "pretraining_tp", "gradient_checkpointing"),
    # of generation, of other tasks, and of other programs
    *("bos_token_id", "eos_token_id", "pad_token_id", "prefix", "use_cache", "max_length", "do_sample", "temperature"),
    *(
        "top_k",
        "top_p",
        "repetition_penalty",
        "return_dict",
        "output_attentions",
        "output_hidden_states",
        "torchscript",
    ),
    *("min_length", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty", "typical_p"),
    *("length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "suppress_tokens"),
    *("output_scores", "num_return_sequences", "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id"),
    *("remove_invalid_values", "exponential_decay_length_penalty", "begin_suppress_tokens", "max_sequence_length"),
    *("sep_token_id", "decoder_start_token_id", "tokenizer_class", "finetuning_task", "task_specific_params"),
    *("id2label", "label2id", "num_labels", "problem_type", "chunk_size_feed_forward", "_attn_implementation_autoset"),
    *("use_bfloat16", "tf_legacy_loss", "is_decoder", "_attn_implementation", "attn_implementation"),
    *("is_llama_config", "transformers.js_config", "_flash_attn_2_enabled", "unsloth_fixed", "unsloth_version"),
}
"""Fields that change no logit, whatever they say."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "attention_bias": (False,),
    "attn_logit_softcapping": (None,),
    "cross_attention_hidden_size": (None,),
    "embedding_multiplier": (1,),
    "final_logit_softcapping": (None,),
    "is_encoder_decoder": (False,),
    "logits_scaling": (1,),
    "mlp_bias": (False,),
    "partial_rotary_factor": (None, 1),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "residual_multiplier": (1,),
    "rope_interleaved": (False,),
    "sliding_window": (None,),
    "tie_encoder_decoder": (False,),
    "use_mrope": (False, None),
    "use_sliding_window": (False,),
}
"""Fields that change logits unless they say this; families that know more of them take them before."""


class Fields:
    """Fields of a model's config, taken one by one."""

    def __init__(self, values: Mapping[str, Any], model: str, prefix: str = "") -> None:
        self._left, self._model, self._prefix = {**values}, model, prefix

    def take(self, name: str, default: Any = None) -> Any:
        """A field's value; the default where it is not there."""
        return self._left.pop(name, default)

    def fill(self, name: str, default: Any) -> None:
        """Gives a field that is not there a value; one that is null stays so."""
        self._left.setdefault(name, default)

    def only(self, name: str, known: Sequence[Any], default: Any = None) -> Any:
        """A field that may have these values alone; raises ValueError for others."""
        value = self.take(name, known[0] if default is None else default)
        # True equals 1, and is another value
        if not any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in known):
            said = " or ".join(map(json.dumps, known))
            raise self.refusal(name, value, f"duo computes {said} alone: choose another model")
        return value

    def size(self, name: str, default: int | None = None) -> int:
        """A whole number from 1 on; raises ValueError for others, and where it is missing without a default."""
        value = self.take(name)
        value = default if value is None else value
        if value is None:
            raise ValueError(f"{self._model}: config.json lacks {self._prefix}{name}: save the model anew")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.refusal(name, value, "it must be a whole number from 1 on")
        return value

    def size_or_none(self, name: str) -> int | None:
        """A whole number from 1 on; None where the field is null or missing."""
        return self.take(name) if self._left.get(name) is None else self.size(name)

    def number(self, name: str, default: float | None = None) -> float:
        """A number; raises ValueError for others, and where it is missing without a default."""
        value = self.take(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refusal(name, value, "it must be a number")
        return float(value)

    def truth(self, name: str, default: bool) -> bool:
        """True or false; raises ValueError for others."""
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise self.refusal(name, value, "it must be true or false")
        return value

    def inner(self, name: str) -> Fields | None:
        """Fields inside a field; None where there are none."""
        return self.within(name, self.take(name))

    def within(self, name: str, value: Any) -> Fields | None:
        """Fields inside a field that is taken already."""
        if value is not None and not isinstance(value, dict):
            raise self.refusal(name, value, "it must hold keys")
        return Fields(value, self._model, f"{self._prefix}{name}.") if value else None

    def end(self) -> None:
        """Raises ValueError where a field is left that changes what the model computes, or that nobody knows."""
        if not self._prefix:
            for name in HARMLESS & {*self._left}:
                self.take(name)
            for name in [*self._left]:
                if name in NEUTRAL:
                    self.only(name, NEUTRAL[name], self._left[name])
        for name, value in self._left.items():
            raise self.refusal(
                name, value, "duo does not know it: take it out if it changes nothing, or choose another model"
            )

    def refusal(self, name: str, value: Any, why: str) -> ValueError:
        """An error that names model, field and value."""
        said = json.dumps(value)
        said = said if len(said) <= 80 else f"{said[:77]}..."
        return ValueError(f"{self._model}: config.json says {self._prefix}{name}={said}: {why}")
