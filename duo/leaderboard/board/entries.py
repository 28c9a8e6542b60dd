"""Which entries of a store can be shown: whole, within their budget, on the published tokens."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from duo.data.batch import sequence_ids
from duo.data.excerpts import subset_rows
from duo.leaderboard.board.board import STATUS
from duo.leaderboard.board.gains import OWN
from duo.leaderboard.entry import entry
from duo.leaderboard.entry.entry import Entry
from duo.leaderboard.entry.rules import check_budget, is_reference
from duo.stages.publish import BackboneHead, TokensHead, backbone_head, documents_of, tokens_head
from duo.storage.store import Store, Unfinished, Unreachable


def read_entries(store: Store, left_out: list[str]) -> Iterator[tuple[Entry, BackboneHead]]:
    """Entries that are whole, within their budget, and on the published tokens; with their backbones.

    Args:
        left_out: takes a sentence for each of the others.

    Raises:
        Unreachable: the store cannot be read.
    """
    heads = functools.cache(lambda digest: backbone_head(store, digest))
    tokens = functools.cache(lambda digest: tokens_head(store, digest))
    for name in store.digests("entries"):
        try:
            one = _read(store, name)
            backbone = heads(one.backbone)
            _check_tokens(one, backbone, tokens(backbone.tokens))
            check_budget(one.row)
            if is_reference(one.row) and one.head.package.name != OWN:
                raise ValueError(f"all small and all big are those of {OWN}")
            yield one, backbone
        except Unreachable:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # a stranger's values may be of any kind
            said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            left_out.append(f"{name[:12]}: {said}")


def _read(store: Store, name: str) -> Entry:
    try:
        return entry.read(store, name)
    except Unfinished as error:
        raise ValueError(f"it is being written, or whoever wrote it was stopped: {error}") from error


def _check_tokens(one: Entry, backbone: BackboneHead, tokens: TokensHead) -> None:
    """Raises ValueError where a row is not of the published backbone and all of its tokens."""
    row, data = one.row, one.settings["data"]
    if row.digests != {"backbone": backbone.weights, "tokens": tokens.digests["whole"]}:
        raise ValueError("row.digests are not those of its published backbone and tokens")
    if one.settings["backbone"]["layers"] != backbone.config["layers"]:
        raise ValueError("its recipe has another number of layers than its published backbone")
    published = {name for name in tokens.splits if name.startswith("holdouts.")}
    if {f"holdouts.{holdout}" for holdout in row.subset} != published:
        raise ValueError(f"its hold-outs are {', '.join(row.subset)}, not the published ones")
    for holdout in row.subset:
        split = f"holdouts.{holdout}"
        document_N, most = documents_of(tokens, split), min(data["subset_tokens"], tokens.length)
        every, some = np.arange(len(document_N)), subset_rows(document_N, data["subset_sequences"])
        for scores, rows, length in ((row.scores, every, tokens.length), (row.subset, some, most)):
            part = scores[holdout].sequences if scores else None
            if part is not None and not (
                np.array_equal(part.sequence_B, sequence_ids(split, rows))
                and np.array_equal(part.document_B, document_N[rows])
                and (part.tokens_B == length).all()
                and part.used_TLM.shape[:2] == (length, backbone.config["layers"])
                and (part.used_TLM.sum(-1) == len(rows)).all()
            ):
                raise ValueError(f"its sequences of {holdout} are not the published ones")


def statuses_of(store: Store, left_out: list[str]) -> dict[str, int]:
    """The highest level that each entry's marks say, as its place in STATUS; `left_out` takes what other marks lack.

    Raises:
        Unreachable: the store cannot be read.
    """
    found: dict[str, int] = {}
    entries = {*store.digests("entries")}
    for digest in store.digests("marks"):
        try:
            marked, level = _read_mark(store, digest, entries)
            found[marked] = max(found.get(marked, 0), level)
        except Unreachable:
            raise
        except ValueError as error:
            left_out.append(f"mark {digest[:12]}: {error}")
    return found


def _read_mark(store: Store, digest: str, entries: set[str]) -> tuple[str, int]:
    head = store.head("marks", digest)
    marked, level = str(head.get("entry")), head.get("level")
    if level not in STATUS:
        raise ValueError(f"level {level!r} is none of {', '.join(STATUS)}")
    if marked not in entries:
        raise ValueError(f"entry {marked[:12]}, which it marks, is not here")
    return marked, STATUS.index(level)
