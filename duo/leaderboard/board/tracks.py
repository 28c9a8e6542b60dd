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
from duo.leaderboard.board.board import STATUS, SUBSET, Board, Line, Standing, Track
from duo.leaderboard.board.entries import read_entries, statuses_of
from duo.leaderboard.board.gains import Group, kind_of
from duo.leaderboard.entry.entry import Entry
from duo.recipe.schema import digest
from duo.stages.publish import BackboneHead
from duo.storage.shared import own_store
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
        parts=[f"{holdout}{subset}" for holdout in first.row.subset for subset in ("", SUBSET)],
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
    """Deployable rows by their mean loss over hold-outs, claims behind the others; then references, then bounds.

    What is scored on subsets alone stands behind the rest of its kind: its losses are of other tokens.
    """
    kinds = ("deployable", "reference", "bound")

    def place(item: tuple[Group, Row]) -> tuple[int, bool, bool, float]:
        claimed = not min(statuses.get(one.digest, 0) for one in item[0])  # a single claim makes it one
        return kinds.index(kind_of(item[1])), not item[1].scores, claimed, mean_loss(item[1])

    return sorted(rows, key=place)


def _lines(rows: list[tuple[Group, Row]], baselines: dict[str, int], statuses: dict[str, int]) -> list[Line]:
    ordered = [row for _, row in rows]
    ranked = sum(kind_of(row) == "deployable" and bool(row.scores) for row in ordered)
    parts: list[dict[str, Standing]] = [{} for _ in rows]
    for holdout in ordered[0].subset:
        for subset in (False, True):
            standings = _standings(gains.scores_of(ordered, holdout, subset), baselines, ranked, subset)
            for place, standing in standings.items():
                parts[place][f"{holdout}{SUBSET * subset}"] = standing
    return [
        _line(group, row, place + 1 if place < ranked else None, parts[place], statuses)
        for place, (group, row) in enumerate(rows)
    ]


def mean_loss(row: Row) -> float:
    """The mean of the losses on the hold-outs."""
    return float(np.mean([score.loss for score in row.shown.values()]))


def _standings(scores: dict[int, Score], baselines: dict[str, int], ranked: int, subset: bool) -> dict[int, Standing]:
    """Standings by place, of rows on the same tokens."""
    fixed, oracle = (baselines.get(name) for name in gains.BASELINES)
    above, minus_fixed = gains.gains_above(scores, ranked), gains.gains_on(scores, fixed)
    closed = gains.gaps_closed(scores, fixed, oracle) if subset else {}
    return {
        place: Standing(
            score=score,
            above=above.get(place, NONE),
            significant=_is_clear(above.get(place, NONE)),
            minus_fixed=minus_fixed.get(place, NONE),
            gap_closed=closed.get(place, NONE),
            heat=_heat(score),
        )
        for place, score in scores.items()
    }


def _is_clear(found: Estimate) -> bool:
    """Whether a difference's interval leaves out 0."""
    return found.interval is not None and not found.interval[0] <= 0 <= found.interval[1]


def _heat(score: Score) -> list[list[float]]:
    """Share of big by layer and by equal parts of the positions, to the three digits that an eye can tell."""
    big_TL = score.sequences.share_TLM[..., 2]
    parts = np.array_split(big_TL, min(BINS, len(big_TL)))
    share_LX: list[list[float]] = np.stack([part.mean(0) for part in parts], axis=1, dtype=float).round(3).tolist()
    return share_LX


def _line(group: Group, row: Row, rank: int | None, parts: dict[str, Standing], statuses: dict[str, int]) -> Line:
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
        parts=parts,
    )
