"""One text as a page: its tokens coloured by how hard they are, and by what compute can do about it."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct, to_builtins

from duo.data.windows import Tokens
from duo.evaluation.categories import CATEGORIES
from duo.evaluation.difficulty import (
    BOUND,
    TOP,
    Means,
    average,
    by_context,
    by_frequency,
    hard_without_potential,
    rank_by_potential,
)
from duo.evaluation.passage import Passage
from duo.report.html import write_html

TEMPLATES = Path(__file__).with_suffix("")
SCRIPTS = ("dom.js", "colours.js", "details.js", "text.js", "plot.js", "tables.js", "page.js")
LISTED = 10  # tokens in each list


class About(Struct, frozen=True):
    """What is told of a text and of who read it."""

    name: str
    """The text's."""
    bytes: int
    """Of all of it, in UTF-8."""
    recipe: str
    router: str
    backbone: str
    """Digest of its weights."""
    budget: dict[str, float]
    """Modules a token by name."""
    context: int
    """Tokens of a window."""
    search: str | None
    """How the oracle's routes were searched for, if not among all that there are."""


def write_page(passage: Passage, about: About, count_V: np.ndarray, path: Path) -> None:
    """Writes the page; the same passage gives the same bytes.

    Args:
        passage: the text as it was read.
        about: what is told of it.
        count_V: how often each token stands in the training data.
        path: of the page.
    """
    write_html(path, TEMPLATES, SCRIPTS, _data(passage, about, count_V), {})


def _data(passage: Passage, about: About, count_V: np.ndarray) -> dict[str, Any]:
    """All that the page shows."""
    gap_N, hard_R = passage.losses.gap_N, hard_without_potential(passage.losses)
    return {
        "about": to_builtins(about),
        "whole": passage.tokens.whole,
        "shown_bytes": sum(map(len, passage.tokens.byte_N)),
        "windows": passage.windows,
        "python": passage.python,
        "bound": passage.bound,
        "categories": CATEGORIES,
        "most": (1 + rank_by_potential(gap_N)[:LISTED]).tolist(),
        "hard": {
            "tokens": (1 + hard_R[:LISTED]).tolist(),
            "count": len(hard_R),
            "of": int(np.ceil(TOP * len(gap_N))),
            "bound": BOUND,
        },
        "tables": {name: to_builtins(rows) for name, rows in tables(passage, count_V).items()},
        **_by_token(passage, count_V * (1e6 / max(count_V.sum(), 1))),
    }


def _by_token(passage: Passage, per_million_V: np.ndarray) -> dict[str, Any]:
    """What is told of every token: null for the first one's losses and routes, for nothing predicts it."""
    losses, rank_N = passage.losses, 1 + rank_by_potential(passage.losses.gap_N).argsort()
    columns = {"small": losses.small_N, "big": losses.big_N, "oracle": losses.oracle_N, "router": passage.router_N}
    columns |= {"gap": losses.gap_N, "rank": rank_N, "front": passage.front_N}
    return {
        **{name: [None, *np.round(value_N, 4).tolist()] for name, value_N in columns.items()},
        "texts": token_strings(passage.tokens),
        "bytes": [text.hex(" ") for text in passage.tokens.byte_N],
        "seen": np.round(per_million_V[passage.tokens.id_N], 1).tolist(),
        "category": passage.labels.category_N.tolist(),
        "fact": {fact: true_N.tolist() for fact, true_N in passage.labels.facts.items()},
        "oracle_route": [None, *_digits(passage.oracle_NL)],
        "router_route": [None, *_digits(passage.router_NL)],
    }


def tables(passage: Passage, count_V: np.ndarray) -> dict[str, list[Means]]:
    """Mean losses of the scored tokens, by what they are and where they stand."""
    category_N, facts = passage.labels.category_N[1:], passage.labels.facts
    groups = {
        "What a token is": {name: category_N == place for place, name in enumerate(CATEGORIES)},
        "Where it stands": {fact: true_N[1:] for fact, true_N in facts.items()},
        "How often it stands in a million training tokens": by_frequency(passage.tokens.id_N[1:], count_V),
        "How many tokens the model saw in front of it": by_context(passage.front_N),
    }
    everything = {"all": np.ones(len(category_N), dtype=bool)}
    return {name: average(masks | everything, passage.losses) for name, masks in groups.items()}


def token_strings(tokens: Tokens) -> list[str]:
    """The characters that each token ends; together they are what was read.

    Empty where a token ends none: its bytes are the first ones of a character. A character of which the last bytes were
    not read is left out.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(text) for text in tokens.byte_N]


def _digits(route_NL: np.ndarray) -> list[str]:
    """Routes as one digit a layer: 0 skip, 1 small, 2 big."""
    return ["".join(map(str, route_L)) for route_L in route_NL.tolist()]
