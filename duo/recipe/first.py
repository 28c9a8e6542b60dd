"""The first defaults: what a recipe means where it says nothing of a key.

A run's identity is what its recipe changes of these values, so that neither a new key nor a changed default moves the
digest of a recipe that does not use it. The table only grows: a new key is added with the value that means "as before
the key existed", and no line is ever changed, not even of a key that is gone.
"""

from __future__ import annotations

from typing import Any

FIRST: dict[str, Any] = {
    "backbone.family": "llama",
    "backbone.layers": 12,
    "backbone.width": 64,
    "backbone.heads": 2,
    "backbone.key_value_heads": None,
    "backbone.big": 256,
    "backbone.small": 16,
    "backbone.vocabulary": 2048,
    "backbone.positions": 2048,
    "backbone.tied": True,
    "backbone.skip_scope": "ffn",
    "backbone.rotary_base": 10000.0,
    "backbone.norm_epsilon": 1e-5,
    "backbone.seed": 0,
    "data.source": "builtin",
    "data.train": [],
    "data.holdouts": {},
    "data.calibration": {},
    "data.column": "text",
    "data.tokens": 128,
    "data.batch_size": 16,
    "data.train_bytes": 0,
    "data.holdout_tokens": 65536,
    "data.calibration_tokens": 32768,
    "data.holdout_documents": 48,
    "data.calibration_documents": 24,
    "data.subset_sequences": 32,
    "data.subset_tokens": 64,
    "data.seed": 0,
    "data.trust": True,
    "stage1.steps": 1000,
    "stage1.learning_rate": 6e-3,
    "stage1.warmup_steps": 50,
    "stage1.min_lr_ratio": 0.1,
    "stage1.weight_decay": 0.1,
    "stage1.grad_clip": 1.0,
    "stage1.p_big": 0.5,
    "stage1.p_skip": 0.0,
    "budget.big": 6,
    "budget.skip": 0,
    "router": {"name": "softmax_budget"},
    "stage3.steps": 300,
    "stage3.learning_rate": 1e-2,
    "stage3.warmup_steps": 50,
    "stage3.min_lr_ratio": 0.1,
    "stage3.weight_decay": 0.0,
    "stage3.grad_clip": 1.0,
    "stage3.batch_size": None,
    "stage3.freeze_backbone": True,
    "stage3.budget": None,
    "trainer": {},
    "full_holdout": True,
    "null_draws": 0,
    "compare.rows": {},
    "compare.over": {},
    "compare.minus": [],
    "compare.gap": [],
    "compare.seeds": 1,
    "compare.knowledge": {},
    "leaderboard.backbone": None,
    "seed": 0,
    "stage1.learn": "all",
    "stage1.before": None,
    "report.parts": {},
    "report.traces": {},
    "report.seeds": None,
    "backbone.head_dim": None,
    "backbone.attention_bias": None,
    "backbone.ffn_bias": None,
    "backbone.qk_norm": False,
    "backbone.unrotated": [],
    "backbone.rotary_scaling": "none",
    "backbone.rotary_factor": 1.0,
    "backbone.rotary_low": 1.0,
    "backbone.rotary_high": 4.0,
    "backbone.rotary_positions": 8192,
    "backbone.window": None,
    "backbone.pretrained": None,
    "budget.pinned": [],
    "backbone.small_from": None,
    "backbone.small_steps": 100,
    "data.tokenizer": None,
    "data.train_tokens": 0,
    "tasks": [],
    "task_path": None,
    "limit": None,
    "shots": None,
    "data.stream": False,
    "data.mix": {},
    "data.lanes": 16,
    "data.shuffle": 4096,
    "data.eval_batch_size": None,
}

NOW_CALLED: dict[str, str] = {}
"""Keys of the table that have another name by now; identities know them by the first one for ever."""

GONE = {"null_draws"}
"""Keys of the table that are no more."""

# What a run's identity does not cover: where it is kept, what is shown of it, and on which devices it runs.
NO_IDENTITY = {
    "output",
    "cache",
    "leaderboard.store",
    "data.trust",
    "data.workers",
    "data.prepare",
    "stage1.log_every",
    "stage1.checkpoint_every",
    "stage3.log_every",
    "stage3.checkpoint_every",
}
DEVICES = {
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "logger",
    "enable_progress_bar",
    "enable_model_summary",
    "default_root_dir",
    "profiler",
    "compile",  # like another device it moves numbers by rounding
    "activation_checkpointing",  # moves none
}
"""Arguments of `trainer` that no identity covers."""

WHOLE = (
    "router",
    "trainer",
    "data.holdouts",
    "data.calibration",
    "data.mix",
    "compare.rows",
    "compare.over",
    "compare.knowledge",
    "stage3.budget",
    "stage1.before",
    "report.parts",
    "report.traces",
)
"""Keys that are one value each, though they hold keys: those are somebody else's, or belong together."""


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key.

    >>> flatten({"seed": 1, "budget": {"big": 6}, "router": {"name": "random"}})
    {'seed': 1, 'budget.big': 6, 'router': {'name': 'random'}}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and prefix + key not in WHOLE:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """The reverse of `flatten`.

    >>> unflatten({"seed": 1, "budget.big": 6})
    {'seed': 1, 'budget': {'big': 6}}
    """
    values: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    return values


def first_values() -> dict[str, Any]:
    """The first defaults of the keys that there are, by their present names, as a recipe's values."""
    return unflatten({NOW_CALLED.get(key, key): value for key, value in FIRST.items() if key not in GONE})


BACKBONE = ("backbone", "budget.pinned", "stage1", "trainer")
"""What a trained backbone depends on beside `data`: of that on the tokens and their order, once they are prepared."""


def identity_of(flat: dict[str, Any]) -> dict[str, Any]:
    """What values by dotted key change of the first defaults, but for what no identity covers."""
    flat = {key: value for key, value in flat.items() if key not in NO_IDENTITY}
    if "trainer" in flat:
        flat["trainer"] = {key: value for key, value in flat["trainer"].items() if key not in DEVICES}
    first_names = {now: first for first, now in NOW_CALLED.items()}
    named = {first_names.get(key, key): value for key, value in flat.items()}
    return {key: value for key, value in named.items() if value != FIRST[key]}  # a new key without its line fails
