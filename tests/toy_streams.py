"""Shards of toy documents, and what is streamed of them, by one process or by several in turn."""

import json
import random

import numpy as np

from duo.data import DataConfig, TextData
from duo.data.stream import Rounds, Share, Streamed

TOTAL, LENGTH = 12, 17  # sequences of a batch, tokens of a sequence


def document(number, kind, words):
    return f"<{kind}{number}> " + " ".join(f"{kind}{random.Random(number).randrange(40)}{n % 7}" for n in range(words))


def documents(kind, count=60):
    return [document(number, kind, random.Random(number).randrange(3, 50)) for number in range(count)]


def write(path, texts):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def mix(a, b=None, **more):
    """Settings of one source or two by their weights."""
    sources = {"a": {"train": ["x"], "weight": a} | more} | ({} if b is None else {"b": {"train": ["x"], "weight": b}})
    return {"train": [], "mix": sources}


def settings(folder, **changes):
    asked = {
        "stream": True, "train": [f"{folder}/a*.jsonl"], "holdouts": {"held": [f"{folder}/held.jsonl"]},
        "calibration": {"cal": [f"{folder}/b0.jsonl"]}, "tokens": LENGTH - 1, "batch_size": TOTAL, "lanes": 4,
        "shuffle": 48, "calibration_tokens": 0, "holdout_tokens": 0,
    }  # fmt: skip
    return DataConfig(source="files", **(asked | changes))


def opened(config, cache):
    data = TextData(config, 300, cache)
    data.setup()
    return data


def stream(plan, share=Share(), workers=0, first=0):  # noqa: B008 # it never changes
    return Streamed(lambda place_N, tokens_NT: (place_N, tokens_NT), plan, workers, Rounds(1000, TOTAL, share, first))


def take(streams, count):
    """The next batches of some processes, put together: (count, TOTAL, T+1)."""
    batches = []
    iterators = [iter(one) for one in streams]
    for _ in range(count):
        parts = [next(iterator) for iterator in iterators]
        places = np.concatenate([place_N for place_N, _ in parts])
        batches.append(np.concatenate([tokens_NT for _, tokens_NT in parts])[np.argsort(places)])
        assert len({*places.tolist()}) == TOTAL
    return np.stack(batches)


def processes(plan, world, workers):
    return [stream(plan, Share(rank, world), workers) for rank in range(world)]


def write_shards(folder):
    """Two sources of three shards each, and a hold-out that holds some of their documents."""
    for kind in "ab":
        texts = documents(kind)
        for shard in range(3):
            write(folder / f"{kind}{shard}.jsonl", texts[shard::3])
    write(folder / "held.jsonl", [document(number, "h", 60) for number in range(20)] + documents("a")[:10])
    return folder
