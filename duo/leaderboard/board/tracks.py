"""From entries to what is shown: tracks, lines over seeds, their order, and what they gain on one another."""

from __future__ import annotations

import contextlib
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from duo.evaluation.intervals import Estimate
from duo.evaluation.row import Row, average_rows
from duo.evaluation.score import Score
from duo.leaderboard.board import gains
from duo.leaderboard.board.board import STATUS, Board, Line, Standing, Track
from duo.leaderboard.board.entries import read_entries, statuses_of
from duo.leaderboard.board.gains import Group, kind_of
from duo.leaderboard.entry.entry import Entry
from duo.recipe.schema import digest
from duo.stages.publish import BackboneHead, own_store
from duo.storage.store import Store

BINS = 16  # of positions, in a line's heat map
NONE = Estimate(None, None)


def build_board(store: Store) -> Board:
    """All that a store holds; entries that cannot be shown are left out with a reason each."""
    left_out: list[str] = []
    statuses = statuses_of(store, left_out)
    tracks: dict[str, list[tuple[Entry, BackboneHead]]] = {}
    for one, backbone in read_entries(store, left_out):
        tracks.setdefault(track_of(one, backbone), []).append((one, backbone))
    shown = [_track(name, entries, statuses, left_out) for name, entries in tracks.items()]
    shown = [track for track in shown if track.lines]
    # a stranger's text could move the terminal's cursor
    sentences = sorted("".join(sign if sign.isprintable() else "?" for sign in sentence[:400]) for sentence in left_out)
    return Board(sorted(shown, key=lambda track: (track.title, track.digest)), sentences, _command(store))


def _command(store: Store) -> str:
    """What runs an entry of the store, named as ENTRY, from the beginning."""
    with contextlib.suppress(ValueError):  # installed without a store
        if Path(store.location).resolve() == Path(own_store()).resolve():
            return "python -m duo.run recipe=leaderboard/entries/ENTRY/recipe.yaml"
    return f"python -m duo.leaderboard verify --retrain ENTRY {shlex.quote(f'leaderboard.store={store.shown}')}"


def track_of(one: Entry, backbone: BackboneHead) -> str:
    """Identity of an entry's track: its backbone's weights, its tokens, those that searches see, and its budget."""
    subset = [one.settings["data"][key] for key in ("subset_sequences", "subset_tokens")]
    return digest([backbone.weights, one.row.digests["tokens"], subset, one.budget])


def _track(
    name: str, entries: list[tuple[Entry, BackboneHead]], statuses: dict[str, int], left_out: list[str]
) -> Track:
    rows, (first, backbone) = [], _foremost(entries, statuses)
    for group in _groups([one for one, _ in entries], statuses, left_out):
        try:
            rows.append((group, average_rows([one.row for one in group])))
        except (KeyError, TypeError, ValueError) as error:  # numbers that one seed has and another has not
            left_out.append(f"{', '.join(one.digest[:12] for one in group)}: seeds do not go together ({error})")
    budget, layers = first.budget, backbone.config["layers"]
    rows = _order(rows, statuses)
    places = gains.find_baselines(rows, statuses)
    title = f"{backbone.about.name}: {budget.big:g} big"
    title += f", {budget.skip:g} skipped" * bool(budget.skip) + f" of {layers} layers"
    return Track(
        digest=name,
        title=title,
        backbone={
            "digest": first.backbone,
            "name": backbone.about.name,
            "layers": layers,
            "width": backbone.config.get("width"),
            "parameters": backbone.parameters,
            "train_tokens": backbone.about.train_tokens,
        },
        budget=budget._asdict(),
        holdouts=[*first.row.subset],
        baselines={name: rows[place][0][0].digest for name, place in places.items()},
        lines=_lines(rows, places, statuses) if rows else [],
    )


def _foremost(entries: list[tuple[Entry, BackboneHead]], statuses: dict[str, int]) -> tuple[Entry, BackboneHead]:
    """The entry whose backbone's name and facts are shown: one that was executed again, of the head that most name.

    The same weights may be published again, under any name.
    """
    named = Counter(one.backbone for one, _ in entries)
    return max(entries, key=lambda pair: (statuses.get(pair[0].digest, 0), named[pair[0].backbone], pair[0].backbone))


def _groups(entries: list[Entry], statuses: dict[str, int], left_out: list[str]) -> Iterator[Group]:
    """Entries that differ in nothing but their seed; what is only claimed joins nothing that was executed again.

    Of those that are the same in the seed too, one that was executed again leaves the others out; claims all stand.
    """
    found: dict[tuple[str, bool, int], dict[int, Entry]] = {}
    known: dict[tuple[str, int], list[Entry]] = {}
    # what was executed comes first, and so leaves claims of its seed out
    for one in sorted(entries, key=lambda one: (-statuses.get(one.digest, 0), one.digest)):
        line, executed = one.line, statuses.get(one.digest, 0) > 0
        twins = known.setdefault((line, one.seed), [])
        if twins and statuses.get(twins[0].digest, 0):
            left_out.append(f"{one.digest[:12]}: of the same recipe, source and seed as {twins[0].digest[:12]}")
        else:
            found.setdefault((line, executed, len(twins)), {})[one.seed] = one
            twins.append(one)
    return ([seeds[seed] for seed in sorted(seeds)] for seeds in found.values())


def _order(rows: list[tuple[Group, Row]], statuses: dict[str, int]) -> list[tuple[Group, Row]]:
    """Deployable rows by their mean loss over hold-outs, claims behind the others; then references, then bounds."""
    kinds = ("deployable", "reference", "bound")

    def place(item: tuple[Group, Row]) -> tuple[int, bool, float]:
        claimed = not min(statuses.get(one.digest, 0) for one in item[0])  # a single claim makes it one
        return kinds.index(kind_of(item[1])), claimed, mean_loss(item[1])

    return sorted(rows, key=place)


def _lines(rows: list[tuple[Group, Row]], baselines: dict[str, int], statuses: dict[str, int]) -> list[Line]:
    ordered = [row for _, row in rows]
    ranked = sum(kind_of(row) == "deployable" for row in ordered)
    gained = {holdout: gains.gains_above(ordered[:ranked], holdout) for holdout in ordered[0].subset}
    closed = {holdout: gains.gaps_closed(ordered, baselines, holdout) for holdout in ordered[0].subset}
    return [
        _line(
            group,
            row,
            place + 1 if place < ranked else None,
            {
                holdout: _standing(row, holdout, gained[holdout].get(place, NONE), closed[holdout].get(place, NONE))
                for holdout in gained
            },
            statuses,
        )
        for place, (group, row) in enumerate(rows)
    ]


def mean_loss(row: Row) -> float:
    """The mean of the losses on the hold-outs."""
    return float(np.mean([score.loss for score in row.shown.values()]))


def _standing(row: Row, holdout: str, above: Estimate, closed: Estimate) -> Standing:
    score = row.shown[holdout]
    clear = above.interval is not None and not above.interval[0] <= 0 <= above.interval[1]
    return Standing(score, above, clear, closed, subset=not row.scores, heat=_heat(score))


def _heat(score: Score) -> list[list[float]]:
    """Share of big by layer and by equal parts of the positions, to the three digits that an eye can tell."""
    big_TL = score.sequences.used_TLM[..., 2]
    parts = np.array_split(big_TL, min(BINS, len(big_TL)))
    share_LX: list[list[float]] = np.stack([part.mean(0) for part in parts], axis=1, dtype=float).round(3).tolist()
    return share_LX


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
        seeds=[one.seed for one in group],
        entries=[one.digest for one in group],
        note=first.note,
        recipe=group[0].recipe,
        provenance=msgspec.to_builtins(first.provenance),
        holdouts=holdouts,
    )
