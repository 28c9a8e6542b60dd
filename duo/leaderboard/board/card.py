"""One entry as text: what it is made of, what it reached and what that cost, at any width."""

from __future__ import annotations

import io
import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from duo.backbone import MODULES
from duo.evaluation.score import Score
from duo.leaderboard.board.board import STATUS
from duo.leaderboard.board.entries import statuses_of
from duo.leaderboard.board.gains import kind_of
from duo.leaderboard.entry.entry import Entry, read
from duo.leaderboard.entry.schema import read_head
from duo.recipe.first import flatten
from duo.recipe.help import settings
from duo.report.messages import plain_console
from duo.report.numbers import half, new_table, size, time_of, times, to_budget
from duo.report.width import fit, width_of
from duo.stages.publish import backbone_head
from duo.storage.store import Store

WIDTH, INDENT = 80, 14  # columns: where there is no terminal; of what a line is about


def tell_entry(store: Store, digest: str) -> str:
    """What an entry is made of, as wide as the terminal, or 80 columns.

    Raises:
        ValueError: it cannot be read, or its backbone is not there.
    """
    entry, file = read(store, digest), io.StringIO()
    width = width_of(Console(), WIDTH)
    console = plain_console(soft_wrap=False, file=file, width=width)
    for about, text in _facts(store, entry):
        console.print(_lines(about, text, width), soft_wrap=True)
    for part in fit([_table(entry)], width):
        console.print(part)
    return file.getvalue()


def _lines(about: str, text: str, width: int) -> str:
    """A line of the card; what is too long goes on below its own beginning."""
    room = max(width - INDENT, 20)
    # a digest is never broken, nor a setting: they are to be copied
    parts = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(f"{about if not number else '':{INDENT}}{part}" for number, part in enumerate(parts))


def _facts(store: Store, entry: Entry) -> Iterator[tuple[str, str]]:
    head, row, made = entry.head, entry.row, entry.head.provenance
    backbone, budget = backbone_head(store, entry.backbone), entry.budget
    yield "entry", entry.digest
    status = STATUS[statuses_of(store, []).get(entry.digest, 0)]
    yield "row", f"{head.name}, seed {entry.seed}: {kind_of(row)}, {status}"
    if head.note:
        yield "note", head.note
    yield "router", f"{row.router} of {head.package.name} {head.package.version}"
    yield "source", head.package.source
    yield "budget", f"{budget.big:g} big, {budget.skip:g} skipped of {entry.settings['backbone']['layers']} layers"
    about = backbone.about
    yield "backbone", f"{about.name}, {backbone.parameters:,} parameters, trained on {about.train_tokens:,} tokens"
    yield "", entry.backbone
    yield "its tokens", backbone.tokens
    yield "recipe", ", ".join(changes(entry.settings)) or "the defaults"
    yield "other seeds", ", ".join(_other_seeds(store, entry)) or "none"
    yield "router size", size(*max((score.router_parameters, score.router_bytes) for score in row.subset.values()))
    for holdout, score in row.shown.items():
        yield f"cost, {holdout}"[:INDENT], _cost(score)
    yield "made by", re.sub("[0-9a-f]{64}", lambda found: found[0][:12], made.command)  # as it may be typed
    yield "made on", f"{made.device}, commit {(made.commit or 'unknown')[:12]}, in {made.seconds:.0f} s"
    yield "versions", ", ".join(f"{name} {version}" for name, version in made.versions.items())


def changes(values: dict[str, Any]) -> list[str]:
    """The settings of a recipe that are not the defaults, as they are typed.

    >>> changes({"router": {"name": "random", "p_big": 0.3}, "seed": 0})
    ['router.name=random', 'router.p_big=0.3']
    """
    defaults = {key: default for key, default, _ in settings()}
    found = []
    for key, value in flatten(values).items():
        if isinstance(value, dict):
            before = defaults[key] or {}
            found += [f"{key}.{name}={_typed(part)}" for name, part in value.items() if before.get(name) != part]
        elif value != defaults[key] and key != "leaderboard.backbone":
            found.append(f"{key}={_typed(value)}")
    return found


def _typed(value: Any) -> str:
    """A value without spaces, so that no line ends in it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _other_seeds(store: Store, entry: Entry) -> Iterator[str]:
    """Entries of the same line from other seeds, with their mean losses."""

    def line_of(digest: str) -> Entry | None:
        head = read_head(store.head("entries", digest), digest)
        # before its other files are fetched
        return read(store, digest) if (head.name, head.package) == (entry.head.name, entry.head.package) else None

    for digest, other in store.sound("entries", line_of):
        if other is not None and digest != entry.digest and other.line == entry.line:
            losses = " / ".join(f"{score.loss:.4f}" for score in other.row.shown.values())
            yield f"{other.seed} ({digest[:8]}, {losses})"


def _cost(score: Score) -> str:
    deciding = times(score.router_flops_per_token / score.flops_per_token)
    return (
        f"{score.flops_per_token / 1e6:.3f} MFLOPs a token, {to_budget(score).strip()} to the budget; deciding "
        f"{deciding} of that, {score.passes:.4g} passes, {time_of(score.time_ratio, score.unexplained_time)} of all "
        "big's time"
    )


def _table(entry: Entry) -> Table:
    view = new_table("Losses in nats a token, ± half the width of a 95 % interval over documents")
    for name in ("hold-out", "loss", "tokens", "documents", "MFLOPs", "skip/small/big"):
        view.add_column(name, no_wrap=True, justify="left" if name == "hold-out" else "right")
    for kind, scores in (("", entry.row.scores), (", subset", entry.row.subset)):
        for holdout, score in scores.items():
            view.add_row(
                f"{holdout}{kind}", f"{score.loss:.4f} {half(score.loss_interval)}".strip(), f"{score.tokens:,}",
                str(score.documents), f"{score.flops_per_token / 1e6:.3f}",
                "/".join(f"{score.share[module]:.2f}" for module in MODULES),
            )  # fmt: skip
    return view
