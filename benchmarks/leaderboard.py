"""The page of a large leaderboard, from reading the entries to the written file.

    python benchmarks/leaderboard.py STORE [--entries 2000]

STORE is the folder of a leaderboard; copies of its first deployable entry, each with a name, a source and losses of its
own, fill a store in a temporary folder.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from duo.leaderboard.board.text import render
from duo.leaderboard.board.tracks import build_board
from duo.leaderboard.page import write_page
from duo.storage.store import Store, sha256


def fill(store: Store, source: Store, entries: int) -> None:
    """Copies an entry so many times, each with other losses."""
    board = build_board(source)
    digest = board.tracks[0].lines[0].entries[0]
    head = source.head("entries", digest)
    files = {name: source.file("entries", digest, name, head) for name in head["files"]}
    del head["files"]
    files["router.safetensors"] = b""  # not read by the page
    for kind in ("backbones", "tokens"):
        shutil.copytree(Path(source.location) / kind, Path(store.location) / kind)
    arrays, generator = load(files["sequences.safetensors"]), np.random.default_rng(0)
    for number in range(entries):
        for part in ("scores", "subset"):
            for holdout, score in head["row"][part].items():
                name = f"{part}/{holdout}/loss_ZB"
                arrays[name] = arrays[name] * generator.uniform(0.999, 1.001, arrays[name].shape)
                score["loss"] = float(arrays[name].sum() / arrays[f"{part}/{holdout}/tokens_B"].sum())
        head |= {"name": f"router {number}", "package": head["package"] | {"source": sha256(f"{number}".encode())}}
        store.add("entries", head, files | {"sequences.safetensors": save(arrays)})


def main() -> None:
    """Fills a store and times the board, its formats and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--entries", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"{folder}/board")
        fill(store, Store(options.store), options.entries)
        start = time.perf_counter()
        board = build_board(store)
        read = time.perf_counter()
        path = write_page(board, Path(folder) / "site")
        written = time.perf_counter()
        render(board, "table")
        shown = time.perf_counter()
        lines = sum(len(track.lines) for track in board.tracks)
        print(
            f"{lines} lines: read and ordered in {read - start:.1f} s, page of {path.stat().st_size / 1e6:.1f} MB in "
            f"{written - read:.1f} s, table in {shown - written:.1f} s"
        )


if __name__ == "__main__":
    main()
