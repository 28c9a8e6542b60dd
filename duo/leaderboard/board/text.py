"""The board as text: a table for the terminal, Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec
from msgspec import structs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from duo.backbone import MODULES
from duo.evaluation.intervals import Estimate
from duo.evaluation.score import FEW_DOCUMENTS
from duo.leaderboard.board.board import Board, Line, Standing, Track
from duo.report.markdown import escape, harmless, row
from duo.report.messages import plain_console
from duo.report.numbers import half, new_table, share, signed, size, time_of, times, to_budget
from duo.report.width import fit, width_of

COLUMNS = (
    "rank", "name", "loss", "minus fixed", "minus above", "gap closed", "skip/small/big", "MFLOPs", "to budget",
    "router FLOPs", "router size", "passes", "time", "µs", "seeds", "status", "entry",
)  # fmt: skip
NUMBERS = (
    "loss", "low", "high", "minus_fixed", "minus_fixed_low", "minus_fixed_high", "minus_above", "minus_above_low",
    "minus_above_high", "gap_closed", "gap_closed_low", "gap_closed_high", *MODULES, "flops", "budget_flops",
    "router_flops", "router_parameters", "router_bytes", "passes", "time_ratio", "unexplained_time",
    "seconds_per_token", "tokens",
)  # fmt: skip
LEFT = ("rank", "name", "status", "entry")
WIDTH = 230


def render(board: Board, format: str) -> str:
    """The board in one of FORMATS."""
    return FORMATS[format](board)


def summarize_left_out(board: Board) -> list[str]:
    """How much is left out, and each reason once, with whom it is of: a line each; none where nothing is."""
    reasons: dict[str, list[str]] = {}
    for sentence in board.left_out:
        who, _, why = sentence.partition(": ")
        # a reason that names its own digest is one reason for all
        reasons.setdefault(why.replace(who.removeprefix("mark "), "..."), []).append(sentence)
    lines = [sentences[0] if len(sentences) == 1 else _several(sentences, why) for why, sentences in reasons.items()]
    return [f"{len(board.left_out)} left out", *(f"left out: {line}" for line in lines)] if lines else []


def _several(sentences: list[str], why: str) -> str:
    some = ", ".join(sentence.partition(": ")[0] for sentence in sentences[:3]) + ", ..." * (len(sentences) > 3)
    return f"{len(sentences)} times, of {some}: {why}"


def choose(board: Board, beginning: str, extra_passes: bool) -> Board:
    """The tracks whose digest or title begins so; without rows of extra passes unless they are wanted."""
    tracks = [
        structs.replace(track, lines=[line for line in track.lines if extra_passes or not passes(line)])
        for track in board.tracks
        if beginning in ("", track.title) or track.digest.startswith(beginning)
    ]
    if not tracks and beginning:
        known = "; ".join(f"{track.digest[:8]} ({track.title})" for track in board.tracks)
        raise ValueError(f"no track begins with {beginning!r}; there are: {known}")
    return structs.replace(board, tracks=tracks)


def passes(line: Line) -> bool:
    """Whether deciding took extra passes through the backbone."""
    return any(standing.score.passes > 0 for standing in line.parts.values())


def _terminal(board: Board) -> str:
    width = width_of(Console(), WIDTH)
    file = io.StringIO()
    console = plain_console(soft_wrap=False, file=file, width=width)
    tables = (_table(track, part) for track, part in _parts(board))
    for shown in fit(tables, width):
        console.print(shown)
    console.print(LEGEND if board.tracks else "no entry can be shown")
    for sentence in summarize_left_out(board):
        console.print(sentence, soft_wrap=True)
    return file.getvalue()


def _table(track: Track, part: str) -> Table:
    view = new_table(_title(track, part))
    for column in COLUMNS:
        justify: Literal["left", "right"] = "left" if column in LEFT else "right"
        view.add_column(column, no_wrap=True, justify=justify, max_width=46 if column == "name" else None)
    kind = None
    for line, standing in _rows(track, part):
        if kind not in (None, line.kind):
            view.add_section()
        kind = line.kind
        view.add_row(*(Text(cell) for cell in _cells(line, standing)))  # Text: a stranger's name is no markup
    return view


def _markdown(board: Board) -> str:
    parts = ["# Leaderboard", "", INTRODUCTION]
    for track, part in _parts(board):
        parts += [
            "",
            f"## {escape(_title(track, part))}",
            "",
            row(COLUMNS),
            "|" + " --- |" * len(COLUMNS),
        ]
        rows = _rows(track, part)
        parts += [row([escape(cell) for cell in _cells(line, standing)]) for line, standing in rows]
    if board.left_out:
        parts += ["", "## Left out", "", *(f"- {escape(sentence)}" for sentence in board.left_out)]
    return "\n".join(parts) + "\n"


LEGEND = (
    "minus fixed: loss minus the best fixed pattern's   * clear of 0   + extra passes   time: of all big's, ? where "
    "its FLOPs do not explain it   to budget: < under 97 % of it spent   µs a token   both as its maker says   "
    "claimed: behind the others until it is executed again"
)

INTRODUCTION = """Made by `python -m duo.leaderboard show --format markdown > LEADERBOARD.md`; CI checks that it is up
to date. Every row can be executed again from its entry: `python -m duo.leaderboard verify ENTRY`. Rows compare within
one table: one backbone, the same tokens and one budget. Behind `±` stands half the width of a 95 % interval over
documents (and seeds, where a row has several); `minus fixed` is the paired difference to the best fixed pattern,
`minus above` that to the row above by rank, `*` where its interval is clear of 0. `gap closed`: of the gap from the
best fixed pattern to the oracle, on the subset of searches, where all rows are scored. Rows that are only claimed
stand behind those that were executed again. `bound`: it read the labels. `reference`: outside the budget rule,
unranked. `to budget`: `<` where less than 97 % of it is spent, `!` where it is not kept. `router size`: numbers that
the router holds, and their bytes. `passes`: extra ones through the backbone, marked `+`. `time`: of all big's in the
same process, `?` where it is more than its FLOPs can explain, so that something was not counted. `µs`: a token. Both
are as its maker says. `entry`: how the digest of its first entry begins, and how many more there are, one for each
seed."""


def _csv(board: Board) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("track", "hold-out", "kind", "rank", "name", "router", *NUMBERS, "seeds", "status", "entries"))
    for track, part in _parts(board):
        for line, standing in _rows(track, part):
            words = (harmless(track.title), harmless(part), line.kind, line.rank, harmless(line.name))
            writer.writerow(
                (
                    *words,
                    harmless(_router(line)),
                    *_numbers(standing),
                    len(line.seeds),
                    line.status,
                    " ".join(line.entries),
                )
            )
    return file.getvalue()


def _numbers(standing: Standing) -> list[float | None]:
    """The values of NUMBERS."""
    score = standing.score
    own = Estimate(score.loss, score.loss_interval)
    estimates = (own, standing.minus_fixed, standing.above, standing.gap_closed)
    return [
        *(part for found in estimates for part in (found.value, *(found.interval or (None, None)))),
        *(score.share[module] for module in MODULES),
        *(score.flops_per_token, score.budget_flops_per_token, score.router_flops_per_token),
        *(score.router_parameters, score.router_bytes, score.passes),
        *(score.time_ratio, int(score.unexplained_time), score.seconds_per_token, score.tokens),
    ]


def _json(board: Board) -> str:
    return msgspec.json.format(msgspec.json.encode(board), indent=1).decode() + "\n"


FORMATS: dict[str, Callable[[Board], str]] = {"table": _terminal, "markdown": _markdown, "csv": _csv, "json": _json}


def _parts(board: Board) -> Iterator[tuple[Track, str]]:
    return ((track, part) for track in board.tracks for part in track.parts if _rows(track, part))


def _title(track: Track, part: str) -> str:
    score = _rows(track, part)[0][1].score
    few = ", so few that intervals are guesses" if score.documents < FEW_DOCUMENTS else ""
    return f"{track.title}: {part}, {score.tokens:,} tokens of {score.documents} documents{few} ({track.digest[:8]})"


def _rows(track: Track, part: str) -> list[tuple[Line, Standing]]:
    return [(line, line.parts[part]) for line in track.lines if part in line.parts]


def _router(line: Line) -> str:
    options = " ".join(f"{key}={json.dumps(value)}" for key, value in line.options.items())
    return f"{line.router} {options}".strip()


def _cells(line: Line, standing: Standing) -> list[str]:
    """The values of COLUMNS; behind a mean stands half the width of its 95 % interval."""
    router, score = _router(line), standing.score
    return [
        str(line.rank or line.kind),
        line.name if line.name == router or line.kind == "reference" else f"{line.name} ({router})",
        f"{score.loss:.4f} {half(score.loss_interval)}".strip(),
        signed(standing.minus_fixed) if standing.minus_fixed.interval else "",
        (signed(standing.above) if standing.above.interval else "") + "*" * standing.significant,
        share(standing.gap_closed),
        "/".join(f"{score.share[module]:.2f}" for module in MODULES),
        f"{score.flops_per_token / 1e6:.3f}",
        to_budget(score).strip(),
        times(score.router_flops_per_token / score.flops_per_token),
        size(score.router_parameters, score.router_bytes),
        f"{score.passes:.4g}" + "+" * (score.passes > 0),
        time_of(score.time_ratio, score.unexplained_time),
        _microseconds(score.seconds_per_token),
        str(len(line.seeds)),
        line.status,
        line.entries[0][:8] + f" +{len(line.entries) - 1}" * (len(line.entries) > 1),
    ]


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}" if seconds < 1e-4 else f"{seconds * 1e6:,.0f}"
