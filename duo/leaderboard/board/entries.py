"""Which entries of a store can be shown: whole, within their budget, on the published tokens."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from duo.data.batch import sequence_ids, subset_rows
from duo.leaderboard.board.board import STATUS
from duo.leaderboard.board.gains import OWN
from duo.leaderboard.entry import entry
from duo.leaderboard.entry.entry import Entry
from duo.leaderboard.entry.rules import check_budget, is_reference
from duo.stages.publish import BackboneHead, TokensHead, backbone_head, tokens_head
from duo.storage.store import Store, Unfinished, Unreachable


def read_entries(store: Store, left_out: list[str]) -> Iterator[tuple[Entry, BackboneHead]]:
    """Entries that are whole, within their budget, and on the published tokens; with their backbones.

    Raises:
        Unreachable: the store cannot be read.
    """
    heads = functools.cache(lambda digest: backbone_head(store, digest))
    tokens = functools.cache(lambda digest: tokens_head(store, digest))
    for name in store.digests("entries"):
        try:
            one = entry.read(store, name)
            backbone = heads(one.backbone)
            _check_tokens(one, backbone, tokens(backbone.tokens))
            check_budget(one.row)
            if is_reference(one.row) and one.head.package.name != OWN:
                raise ValueError(f"all small and all big are those of {OWN}")
            yield one, backbone
        except Unfinished:
            continue  # somebody is writing it
        except Unreachable:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # a stranger's values may be of any kind
            said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            left_out.append(f"{name[:12]}: {said}")


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
        held, most = tokens.splits[split], min(data["subset_tokens"], tokens.length)
        some = subset_rows(held, data["subset_sequences"])
        for scores, rows, length in ((row.scores, np.arange(held), tokens.length), (row.subset, some, most)):
            part = scores[holdout].sequences if scores else None
            if part is not None and not (
                np.array_equal(part.sequence_B, sequence_ids(split, rows))
                and (part.tokens_B == length).all()
                and part.used_TLM.shape[:2] == (length, backbone.config["layers"])
            ):
                raise ValueError(f"its sequences of {holdout} are not the published ones")


def statuses_of(store: Store) -> dict[str, int]:
    """The highest level that each entry's marks say, as its place in STATUS."""

    def mark(digest: str) -> tuple[str, int]:
        head = store.head("marks", digest)
        return str(head.get("entry")), STATUS.index(head.get("level"))  # ValueError: an unknown level is passed over

    found: dict[str, int] = {}
    for _, (marked, level) in store.sound("marks", mark):
        found[marked] = max(found.get(marked, 0), level)
    return found
