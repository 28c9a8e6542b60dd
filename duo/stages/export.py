"""What a run made, as a folder that transformers loads: all big as a plain model, or with its router."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from duo.backbone.pretrained import write_model
from duo.data.tokenizer import begin_token, end_token, tokenizer_digest
from duo.recipe import Recipe
from duo.stages.publish import full_shape
from duo.stages.writer import Writer
from duo.storage.location import is_taken


def check_target(folder: Path, routed: bool) -> None:
    """Raises ValueError where a folder holds something, or transformers is needed and missing, before any work."""
    if is_taken(folder):
        raise ValueError(f"{folder} holds something already: give a new or empty folder")
    if routed:
        need_transformers()


def need_transformers() -> None:
    """Raises ValueError where transformers is not installed, and says what to install."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise ValueError("--routed needs transformers: pip install 'duo-llm[hf]'") from None


def write_plain(folder: Path, recipe: Recipe, writer: Writer) -> None:
    """The model that the backbone is where all tokens take the big FFNs; raises as `write_model` does."""
    write_model(folder, writer.backbone, _special(writer.tokenizer))
    write_tokenizer(folder, writer.tokenizer, recipe.backbone.positions)


def write_routed(folder: Path, recipe: Recipe, writer: Writer) -> None:
    """Backbone, router and budget as `DuoForCausalLM`."""
    from duo.inference.huggingface import DuoConfig, DuoForCausalLM

    config = DuoConfig(
        backbone=full_shape(recipe.backbone), router={**recipe.router}, budget=asdict(recipe.budget), seed=recipe.seed,
        tokenizer=tokenizer_digest(writer.tokenizer), **_special(writer.tokenizer),
    )  # fmt: skip
    DuoForCausalLM(config, writer.backbone.cpu(), writer.router.cpu()).save_pretrained(folder)
    write_tokenizer(folder, writer.tokenizer, recipe.backbone.positions)


def write_tokenizer(folder: Path, tokenizer: Tokenizer, most: int) -> None:
    """The tokenizer as transformers' fast one."""
    tokenizer.save(str(folder / "tokenizer.json"))
    told: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": most,
        "clean_up_tokenization_spaces": False,
    }
    for name, number in (("bos_token", begin_token(tokenizer)), ("eos_token", end_token(tokenizer))):
        if number is not None:
            told[name] = tokenizer.id_to_token(number)
    (folder / "tokenizer_config.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _special(tokenizer: Tokenizer) -> dict[str, Any]:
    """The fields of config.json that number special tokens."""
    return {"bos_token_id": begin_token(tokenizer), "eos_token_id": end_token(tokenizer), "pad_token_id": None}
