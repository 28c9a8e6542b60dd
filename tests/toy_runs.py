"""Finished runs of numbers that nobody measured."""

import numpy as np
from msgspec import structs

from duo.backbone import MODULES
from duo.evaluation.finished import Finished
from duo.evaluation.intervals import Sequences, estimate_loss
from duo.evaluation.row import Row
from duo.evaluation.score import Score

SEQUENCES = 24
BUDGET = dict(zip(MODULES, (0.0, 1.0, 2.0), strict=True))
DATA = {"data.tokens": 8, "data.subset_tokens": 8}


def toy_score(loss, seed=0, seeds=1, tokens=8, first=0):
    """A score around a loss; what is common to all scores of the same tokens varies more than what is not."""
    common, own = np.random.default_rng(99), np.random.default_rng(seed)
    loss_ZB = loss * tokens + common.normal(0, 4, SEQUENCES) + own.normal(0, 0.2, (seeds, SEQUENCES))
    sequence_B = first + np.arange(SEQUENCES)
    used_TLM = own.integers(1, 9, (tokens, 3, 3)) * [0, 1, 1]
    sequences = Sequences(loss_ZB, np.full(SEQUENCES, tokens), used_TLM, sequence_B, np.arange(SEQUENCES) // 2)
    mean = estimate_loss(sequences)
    return Score(
        loss=mean.value, loss_interval=mean.interval, perplexity=2.0, bits_per_byte=1.0, tokens=SEQUENCES * tokens,
        documents=SEQUENCES // 2, share={"big": 0.5, "skip": 0.0, "small": 0.5}, flops_per_token=2e6,
        budget_flops_per_token=2e6, router_flops_per_token=1e4, within_budget=True, passes=0.0, labels_consulted=False,
        seconds_per_token=1e-4, promised_loss=None, time_ratio=1.1, unexplained_time=False, router_parameters=1000,
        router_bytes=4000,
    ).made_of(sequences)  # fmt: skip


def toy_row(loss, seed=0, backbone="b", tokens="t", budget=BUDGET, holdouts=("held", "other"), searches=False, **about):
    """A row of that loss, on full hold-outs and on their subset, or on the subset alone."""
    score = {name: toy_score(loss, seed, **about) for name in holdouts}
    digests = {"backbone": backbone * 64, "tokens": tokens * 64}
    return Row("toy", {}, budget, digests, scores={} if searches else score, subset=score)


def toy_run(label, rows, gap=("fixed", "oracle"), groups=("",), **changes):
    """A run with these rows, the first of which is its own."""
    return Finished(
        **{
            "label": label, "where": f"runs/{label}", "recipe": "toy", "digest": label * 64,
            "groups": dict.fromkeys(groups, rows), "first": next(iter(rows)),
            "gap": tuple(name if name in rows else "" for name in gap), "begins": [], "foreign": [], "data": DATA,
            "provenance": {"seed": 0},
        }
        | changes
    )  # fmt: skip


def toy_rows(loss, seed, **about):
    """A router beside a best fixed pattern and an oracle, which are those of every other run."""
    ends = {"fixed": toy_row(4.0, 1, **about), "oracle": toy_row(3.0, 2, searches=True, **about)}
    return {"mine": toy_row(loss, seed, **about)} | ends


def fail(row):
    return structs.replace(row, scores={}, subset={}, failed="it broke")
