"""What a stream takes while much text goes through it: memory of all its processes, and tokens a second.

    OMP_NUM_THREADS=1 python benchmarks/stream.py [--bytes 2e9] [--workers 2] [--prepare]

Text is generated into jsonl shards of a temporary folder, then streamed once through. Memory is what this process and
its workers hold that no file holds (RssAnon), at every hundredth of the way; the most in each tenth is shown.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from duo.data import DataConfig, TextData

SHARD = 1 << 26  # bytes


def write_shards(folder: Path, size: int) -> None:
    """Documents of all lengths, of words that are drawn anew."""
    generator = np.random.default_rng(0)
    words = ["".join(map(chr, generator.integers(97, 123, length))) for length in generator.integers(2, 9, 4000)]
    written = number = 0
    while written < size:
        with (folder / f"train{number:04d}.jsonl").open("w") as file:
            while file.tell() < min(SHARD, size - written):
                drawn = generator.integers(0, len(words), int(generator.pareto(1.5) * 100) + 20)
                file.write(json.dumps({"text": " ".join([words[word] for word in drawn])}) + "\n")
            written, number = written + file.tell(), number + 1
    with (folder / "held.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": " ".join(words[number:])}) + "\n" for number in range(20))


def memory() -> int:
    """Bytes that this process and those beside it hold."""
    processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    told = [Path(f"/proc/{process}/status").read_text().partition("RssAnon:")[2] for process in processes]
    return sum(int(line.split()[0]) << 10 for line in told)


def measure(options: Namespace, folder: Path) -> Iterator[tuple[int, float]]:
    """(bytes of memory, tokens a second so far) at each hundredth of the way."""
    write_shards(folder, int(options.bytes))
    config = DataConfig(
        source="files", stream=True, train=[f"{folder}/train*.jsonl"], holdouts={"held": [f"{folder}/held.jsonl"]},
        tokens=512, batch_size=32, workers=options.workers, prepare=options.prepare,
    )  # fmt: skip
    data = TextData(config, 4096, folder / "cache")
    stream = iter(data.train_dataloader())
    given = text = 0
    start, point = time.perf_counter(), 0
    while text < options.bytes:
        batch = next(stream)
        given, text = given + batch.tokens_BT.numel(), text + int(batch.bytes_B.sum())
        if text * 100 >= point * options.bytes:
            yield memory(), given / (time.perf_counter() - start)
            point += 1


def most_by_tenth(points: list[tuple[int, float]]) -> list[int]:
    """Bytes of memory at most in each tenth of the way."""
    return [max(taken for taken, _ in points[at : at + 10]) for at in range(0, 100, 10)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=float, default=2e9, help="of text")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--prepare", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        points = [*measure(chosen, Path(place))]
    print("memory in MB, tenth by tenth: " + " ".join(f"{taken / 1e6:.0f}" for taken in most_by_tenth(points)))
    print(f"tokens a second: {points[-1][1]:,.0f}")
