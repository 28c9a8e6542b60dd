"""The report: its figures with their numbers, its claims, and both as one page and as markdown."""

from __future__ import annotations

import logging
import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import matplotlib as mpl
import msgspec
from matplotlib.figure import Figure
from PIL import Image

from duo.evaluation.verdict import Claim, Part
from duo.report.names import printable
from duo.report.paper.captions import TERMS
from duo.report.paper.evidence import Evidence
from duo.report.paper.figures import DRAW
from duo.report.paper.rows import Rows, collect, to_csv
from duo.report.paper.statement import judge
from duo.report.paper.tables import FIGURES
from duo.report.paper.words import judge_in_words, stands_on, tell, tell_intervals
from duo.routing.source import module_digest
from duo.storage.files import replacing

PAGE = Path(__file__).parent / "page"
STYLE: Any = {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "duo", "savefig.facecolor": "white"}
MARKS = {"holds": "\u2713", "does not hold": "\u2717", "undecided": "?"}
CLASSES = {"holds": "holds", "does not hold": "fails", "undecided": "open"}

log = logging.getLogger(__name__)


class Shown(NamedTuple):
    """A figure as a report shows it."""

    number: str
    title: str
    sentences: list[str]
    png: Path | None
    """Nothing where it could not be drawn."""
    missing: dict[str, str]
    """By hold-out, why it is not in it."""


def write_report(folder: Path, evidence: Evidence, facts: Mapping[str, str], failed: Mapping[str, str]) -> list[Claim]:
    """Writes `figures/`, `claims.json`, `report.md` and `report.html`; returns the claims.

    Args:
        folder: where to.
        evidence: what was measured.
        facts: what is told of the run.
        failed: why something is not there, by name.
    """
    shown = [*_draw(folder / "figures", evidence)]
    claims = judge(evidence)
    texts = {
        "claims.json": to_json(claims),
        "report.md": to_markdown(claims, shown, facts, failed),
        "report.html": to_html(claims, shown, facts, failed),
    }
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, "utf-8", newline="\n")
    return claims


def _draw(folder: Path, evidence: Evidence) -> Iterable[Shown]:
    """Every figure with its numbers: drawn from the rows that are written as CSV, where these have changed."""
    for numbers in FIGURES:
        rows, missing = collect(numbers, evidence)
        png = folder / f"figure_{numbers.figure}.png"
        if not rows:
            for path in folder.glob(f"{png.stem}.*"):
                path.unlink()  # of an earlier start
        else:
            _draw_one(png, to_csv(rows), rows, DRAW[numbers.figure])
        sentences = [
            *tell(numbers.figure, rows),
            *tell_intervals(rows, evidence.level),
            *stands_on(numbers.figure, evidence),
        ]
        yield Shown(numbers.figure, numbers.title, sentences, png if rows else None, missing)


def _draw_one(png: Path, text: str, rows: Rows, draw: Callable[[Rows], Figure]) -> None:
    """Writes a figure as PNG and SVG, then its numbers, which say that both are drawn."""
    svg, numbers, drawn_by = png.with_suffix(".svg"), png.with_suffix(".csv"), module_digest(draw.__module__)
    if png.exists() and numbers.exists() and numbers.read_text("utf-8") == text and _is_by(svg, drawn_by):
        return
    with mpl.rc_context(STYLE):
        drawn = draw(rows)
        with replacing(png) as temporary:
            _save_png(drawn, temporary)
        with replacing(svg) as temporary:
            # the same numbers, the same bytes
            drawn.savefig(temporary, format="svg", metadata={"Date": None, "Identifier": drawn_by})
    with replacing(numbers) as temporary:
        temporary.write_text(text, "utf-8")


def _is_by(svg: Path, drawn_by: str) -> bool:
    """Whether a figure is there, drawn by this version of what draws it."""
    return svg.exists() and drawn_by in svg.read_text("utf-8")


def _save_png(drawn: Figure, path: Path) -> None:
    """Writes a figure as a PNG of 256 colours, which looks the same at a third of the bytes: pages hold them all."""
    whole = BytesIO()
    drawn.savefig(whole, format="png", dpi=110)
    few = Image.open(whole).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(path, format="png", optimize=True)


def to_json(claims: Sequence[Claim]) -> str:
    """Claims with their verdicts."""
    plain = [
        {
            "name": claim.name, "says": claim.says, "place": claim.place, "holdout": claim.holdout,
            "verdict": claim.verdict, "tests": claim.tests, "why": claim.why,
            "parts": [_plain(part) for part in claim.parts],
        }
        for claim in claims
    ]  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(plain).decode(), indent=1) + "\n"


def _plain(part: Part) -> dict[str, object]:
    bounds = {"above": part.low, "below": part.high}
    return {
        "says": part.says, "value": part.found.value, "interval": part.found.interval,
        "claimed": {name: bound for name, bound in bounds.items() if math.isfinite(bound)}, "verdict": part.verdict,
        "why": part.why,
    }  # fmt: skip


def _number(part: Part) -> str:
    """A number with its interval, and where the claim says that it lies."""
    value = "none" if part.found.value is None else _signed(part.found.value)
    interval = "" if part.found.interval is None else f" [{', '.join(map(_signed, part.found.interval))}]"
    wanted = [f"above {part.low:g}"] * math.isfinite(part.low) + [f"below {part.high:g}"] * math.isfinite(part.high)
    why = f" ({part.why})" if part.why else ""
    return f"{part.says}: {value}{interval}, claimed {' and '.join(wanted)}: {part.verdict}{why}"


def _signed(value: float) -> str:
    """Four digits; of what is smaller its size."""
    return f"{value:+.4f}" if not value or abs(value) >= 5e-5 else f"{value:+.0e}"


def _by_statement(claims: Sequence[Claim]) -> tuple[list[str], dict[str, dict[str, Claim]]]:
    """The hold-outs, and the claims by name and hold-out."""
    found: dict[str, dict[str, Claim]] = {}
    for claim in claims:
        found.setdefault(claim.name, {})[claim.holdout] = claim
    return [*dict.fromkeys(claim.holdout for claim in claims)], found


def to_markdown(
    claims: Sequence[Claim], shown: Sequence[Shown], facts: Mapping[str, str], failed: Mapping[str, str]
) -> str:
    """The report as text with pictures beside it."""
    holdouts, statements = _by_statement(claims)
    lines = ["# Duo-LLM, reproduced", "", *(f"- {name}: {value}" for name, value in facts.items())]
    lines += [f"- **failed** {name}: {why}" for name, why in failed.items()]
    lines += ["", "## Words", "", *(f"- **{name}**: {meaning}" for name, meaning in TERMS.items())]
    lines += ["", "## Claims", "", f"| claim | in the paper | {' | '.join(map(_cell, holdouts))} |"]
    lines += ["|---|---|" + "---|" * len(holdouts)]
    for by_holdout in statements.values():
        first = next(iter(by_holdout.values()))
        verdicts = [judge_in_words(by_holdout[name]) if name in by_holdout else "" for name in holdouts]
        lines.append(f"| {first.says} | {first.place} | {' | '.join(verdicts)} |")
    for figure in shown:
        lines += ["", f"## Figure {figure.number}", "", f"{figure.title}.", ""]
        lines += [f"{sentence}  " for sentence in [*figure.sentences, *_missing(figure)]]
        if figure.png:
            lines += ["", f"![Figure {figure.number}](figures/{figure.png.name})"]
    lines += ["", "## Numbers of the claims", ""]
    for claim in claims:
        lines.append(f"- {claim.name}, {printable(claim.holdout)}: **{judge_in_words(claim)}**")
        lines += [f"  - {said}" for said in map(_number, claim.parts)] or [f"  - {claim.why}"]
    return "\n".join(lines) + "\n"


def _cell(name: str) -> str:
    """A name in a table of markdown."""
    return printable(name).replace("|", "\\|")


def _missing(figure: Shown) -> list[str]:
    return [f"{printable(holdout)}: not drawn: {why}." for holdout, why in figure.missing.items()]


def to_html(
    claims: Sequence[Claim], shown: Sequence[Shown], facts: Mapping[str, str], failed: Mapping[str, str]
) -> str:
    """The report as one page that needs nothing but itself; it holds no script, and all text in it is escaped."""
    holdouts, statements = _by_statement(claims)
    return Template((PAGE / "index.html").read_text("utf-8")).substitute(
        style=(PAGE / "page.css").read_text("utf-8"),
        tests=max((claim.tests for claim in claims), default=0),
        facts=_list(facts),
        terms=_list(TERMS),
        failed="".join(f'<p class="failed">failed: {escape(f"{name}: {why}")}</p>' for name, why in failed.items()),
        holdouts="".join(f"<th>{escape(printable(name))}</th>" for name in holdouts),
        claims="\n".join(_claim_row(by_holdout, holdouts) for by_holdout in statements.values()),
        figures="\n".join(map(_figure, shown)),
    )


def _list(entries: Mapping[str, str]) -> str:
    """Names, each with what is told of it."""
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>" for name, said in entries.items())


def _claim_row(by_holdout: Mapping[str, Claim], holdouts: Sequence[str]) -> str:
    first = next(iter(by_holdout.values()))
    told = [f"<td>{escape(first.says)}</td><td>{escape(first.place)}</td>"]
    for name in holdouts:
        verdict = _verdict(by_holdout[name]) if name in by_holdout else ""
        told.append(f'<td data-holdout="{escape(printable(name))}">{verdict}</td>')  # named where it stands alone
    return f"<tr>{''.join(told)}</tr>"


def _verdict(claim: Claim) -> str:
    items = "".join(f"<li>{escape(said)}</li>" for said in map(_number, claim.parts)) or f"<li>{escape(claim.why)}</li>"
    said = f"{MARKS[claim.verdict]} {escape(judge_in_words(claim))}"
    return f'<details class="{CLASSES[claim.verdict]}"><summary>{said}</summary><ul>{items}</ul></details>'


def _figure(figure: Shown) -> str:
    said = " ".join([f"{figure.title}.", *figure.sentences, *_missing(figure)])
    picture, links = "", ""
    if figure.png:
        data = b64encode(figure.png.read_bytes()).decode()
        picture = f'<div class="wide"><img alt="{escape(figure.title)}" src="data:image/png;base64,{data}"></div>'
        names = [figure.png.with_suffix(ending).name for ending in (".csv", ".png")]
        links = " Beside this page: " + ", ".join(f'<a href="figures/{name}">{name}</a>' for name in names) + "."
    return (
        f'<h2 id="figure-{figure.number}">Figure {figure.number}</h2>'
        f"<figure>{picture}<figcaption>{escape(said)}{links}</figcaption></figure>"
    )
