"""From entries to what is shown: tracks, lines over seeds, their order, and what they gain on one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from duo.intervals import Estimate, Sequences, gaps_between, means_of
from duo.leaderboard import entry
from duo.leaderboard.admission import is_reference
from duo.leaderboard.board import STATUS, Board, Line, Standing, Track
from duo.leaderboard.entry import Entry
from duo.recipe import digest
from duo.row import Row, on_same_tokens, over_seeds
from duo.score import Score
from duo.store import Store

BINS = 16  # of positions, in a line's heat map
NONE = Estimate(None, None)

Group = list[Entry]
"""Entries that differ in nothing but their seed."""


def board_of(store: Store) -> Board:
    """All that a store holds; entries that cannot be shown are left out with a reason each."""
    left_out: list[str] = []
    tracks: dict[str, list[Entry]] = {}
    for one in _readable(store, left_out):
        tracks.setdefault(track_of(one), []).append(one)
    statuses, backbones = _statuses(store), {name: _backbone(store, name) for name in store.digests("backbones")}
    shown = [_track(name, entries, backbones, statuses, left_out) for name, entries in tracks.items()]
    return Board(sorted((track for track in shown if track.lines), key=lambda track: track.title), left_out)


def track_of(one: Entry) -> str:
    """Identity of an entry's track: its backbone, its tokens and its budget."""
    row = one.row
    tokens = {holdout: score.tokens for holdout, score in row.subset.items()}
    return digest([one.head.backbone, row.digests, row.budget, tokens])


def _readable(store: Store, left_out: list[str]) -> Iterator[Entry]:
    for name in store.digests("entries"):
        try:
            one = entry.read(store, name)
        except ValueError as error:
            left_out.append(f"{name[:12]}: {error}")
            continue
        over = [holdout for holdout, score in one.row.shown.items() if not score.within_budget]
        if over and not is_reference(one.row):
            left_out.append(f"{name[:12]}: {one.head.name} is not within the budget on {', '.join(over)}")
        else:
            yield one


def _track(
    name: str, entries: list[Entry], backbones: dict[str, Any], statuses: dict[str, int], left_out: list[str]
) -> Track:
    groups: dict[tuple[str, str], Group] = {}
    first = entries[0]
    for one in entries:
        if _same_tokens(first.row, one.row):
            group = groups.setdefault((one.head.line, one.head.package.source), [])
            if one.head.seed not in [other.head.seed for other in group]:
                group.append(one)
        else:
            left_out.append(f"{one.digest[:12]}: its hold-outs are not those of {first.digest[:12]}, of the same track")
    ordered = [sorted(group, key=lambda one: one.head.seed) for group in groups.values()]
    rows = [(group, over_seeds([one.row for one in group])) for group in ordered]
    backbone, budget = backbones.get(first.head.backbone, {}), first.row.budget
    title = f"{backbone.get('name', first.head.backbone[:8])}: {budget['big']:g} big"
    title += f", {budget['skip']:g} skipped" * bool(budget["skip"]) + f" of {backbone.get('layers', '?')} layers"
    return Track(
        digest=name,
        title=title,
        backbone={"digest": first.head.backbone, **backbone},
        budget=budget,
        holdouts=[*first.row.subset],
        lines=_lines(rows, statuses),
    )


def _same_tokens(row: Row, other: Row) -> bool:
    """Whether the sequences of both rows' subsets, and of their whole hold-outs where both have them, are the same."""
    pairs = [(row.subset, other.subset), *([(row.scores, other.scores)] if row.scores and other.scores else [])]
    return all(
        {*ours} == {*theirs}
        and all(np.array_equal(ours[key].sequences.sequence_N, theirs[key].sequences.sequence_N) for key in ours)
        and all(np.array_equal(ours[key].sequences.tokens_N, theirs[key].sequences.tokens_N) for key in ours)
        for ours, theirs in pairs
    )


def _lines(rows: list[tuple[Group, Row]], statuses: dict[str, int]) -> list[Line]:
    """Deployable lines by their mean loss over hold-outs, then references, then bounds."""
    kinds = ("deployable", "reference", "bound")
    rows = sorted(rows, key=lambda item: (kinds.index(kind_of(item[1])), mean_loss(item[1])))
    ordered = [row for _, row in rows]
    ranked = sum(kind_of(row) == "deployable" for row in ordered)
    above = {holdout: _above(ordered[:ranked], holdout) for holdout in ordered[0].subset}
    closed = {holdout: _closed(ordered, holdout) for holdout in ordered[0].subset}
    return [
        _line(
            group,
            row,
            place + 1 if place < ranked else None,
            {
                holdout: _standing(
                    row.shown[holdout], above[holdout].get(place, NONE), closed[holdout].get(place, NONE)
                )
                for holdout in above
            },
            statuses,
        )
        for place, (group, row) in enumerate(rows)
    ]


def _above(rows: list[Row], holdout: str) -> dict[int, Estimate]:
    """By place, loss minus that of the row above on the same tokens (the subset where one has no others)."""
    pairs = {place: on_same_tokens(rows[place], rows[place - 1], holdout) for place in range(1, len(rows))}
    return _by_tokens(
        {place: (ours.sequences, theirs.sequences) for place, (ours, theirs) in pairs.items()}, _differences
    )


def _closed(rows: list[Row], holdout: str) -> dict[int, Estimate]:
    """By place, the gap that a row closes between the best fixed pattern and the oracle, where the track has both."""
    fixed, oracle = (
        next((row for row in rows if (row.router, row.options) == (name, {})), None)
        for name in ("fixed_best", "oracle")
    )
    if fixed is None or oracle is None:
        return {}
    above, below = fixed.subset[holdout].sequences, oracle.subset[holdout].sequences
    pairs = {place: on_same_tokens(row, fixed, holdout) for place, row in enumerate(rows) if row is not fixed}
    return _by_tokens(
        {place: (ours.sequences, whole.sequences) for place, (ours, whole) in pairs.items()},
        lambda found: gaps_between([ours for ours, _ in found], found[0][1], above, below),
    )


def _by_tokens(
    pairs: dict[int, tuple[Sequences, Sequences]],
    estimates: Callable[[list[tuple[Sequences, Sequences]]], list[Estimate]],
) -> dict[int, Estimate]:
    """Estimates of all pairs, those on the same tokens in one go."""
    found: dict[int, Estimate] = {}
    for length in {len(ours.loss_N) for ours, _ in pairs.values()}:
        places = [place for place, (ours, _) in pairs.items() if len(ours.loss_N) == length]
        found |= dict(zip(places, estimates([pairs[place] for place in places]), strict=True))
    return found


def _differences(pairs: list[tuple[Sequences, Sequences]]) -> list[Estimate]:
    return means_of(np.stack([ours.loss_N - theirs.loss_N for ours, theirs in pairs], axis=1), pairs[0][0].tokens_N)


def kind_of(row: Row) -> str:
    """`deployable`, `bound` or `reference`."""
    return "bound" if row.bound else "reference" if is_reference(row) else "deployable"


def mean_loss(row: Row) -> float:
    """The mean of the losses on the hold-outs."""
    return float(np.mean([score.loss for score in row.shown.values()]))


def _standing(score: Score, above: Estimate, closed: Estimate) -> Standing:
    return Standing(
        loss=score.loss,
        interval=score.loss_interval,
        above=above,
        gap_closed=closed,
        tokens=score.tokens,
        share=score.share,
        flops=score.flops_per_token,
        budget_flops=score.budget_flops_per_token,
        deciding_flops=score.deciding_flops_per_token,
        passes=score.passes,
        seconds_per_token=score.seconds_per_token,
        heat=_heat(score),
    )


def _heat(score: Score) -> list[list[float]]:
    """Share of big by layer and by equal parts of the positions."""
    big_TL = score.sequences.used_TLM[..., 2]
    parts = np.array_split(big_TL, min(BINS, len(big_TL)))
    return [[round(float(share), 3) for share in layer] for layer in np.stack([part.mean(0) for part in parts], axis=1)]


def _line(group: Group, row: Row, rank: int | None, holdouts: dict[str, Standing], statuses: dict[str, int]) -> Line:
    first = group[0].head
    return Line(
        name=first.name,
        kind=kind_of(row),
        rank=rank,
        router=row.router,
        options=row.options,
        package=f"{first.package.name} {first.package.version}",
        status=STATUS[min(statuses.get(one.digest, 0) for one in group)],
        seeds=[one.head.seed for one in group],
        entries=[one.digest for one in group],
        note=first.note,
        recipe=group[0].recipe,
        command=first.provenance.command,
        provenance=msgspec.to_builtins(first.provenance),
        holdouts=holdouts,
    )


def _statuses(store: Store) -> dict[str, int]:
    """The highest level that each entry's marks say, as its place in STATUS."""
    found: dict[str, int] = {}
    for name in store.digests("marks"):
        try:
            mark = store.head("marks", name)
            found[mark["entry"]] = max(found.get(mark["entry"], 0), STATUS.index(mark["level"]))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _backbone(store: Store, name: str) -> dict[str, Any]:
    """What is shown of a published backbone; nothing where it cannot be read."""
    try:
        head = store.head("backbones", name)
        config, about = head["config"], head["about"]
        return {
            "name": str(about["name"]),
            "layers": int(config["layers"]),
            "width": int(config["width"]),
            "parameters": int(head["parameters"]),
            "train_tokens": int(about["train_tokens"]),
        }
    except (ValueError, KeyError, TypeError):
        return {}
