"""What may stand in `result.json`, as a JSON schema: made of the structs that are written, with their own sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Struct

from duo.evaluation.comparison import Comparison
from duo.evaluation.downstream import Downstream
from duo.evaluation.format import SCHEMA
from duo.evaluation.result import Result
from duo.recipe.help import sentences_of

KINDS = (Result, Comparison, Downstream)
"""What a run of one router, a comparison and a run on tasks leave."""


def result_schema() -> dict[str, Any]:
    """The schema of all kinds of results, for any validator that knows draft 2020-12."""
    kinds, parts = msgspec.json.schema_components(KINDS, ref_template="#/$defs/{name}")
    for struct in sorted({*structs_in(KINDS)}, key=lambda struct: struct.__name__):
        for name, sentence in sentences_of(struct).items():
            parts[struct.__name__]["properties"][name]["description"] = " ".join(sentence.split())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "result.json of duo",
        "description": "Of a run of one router (Result), a comparison (Comparison) or a run on tasks (Downstream).",
        "type": "object",
        "required": ["schema"],
        "properties": {"schema": {"const": SCHEMA, "description": "Number of this form; another one is not read."}},
        "anyOf": [*kinds],
        "$defs": parts,
    }


def structs_in(hint: Any) -> Iterator[type[Struct]]:
    """The structs of a type, and of all that their fields hold."""
    if isinstance(hint, type) and issubclass(hint, Struct):
        yield hint
        for part in get_type_hints(hint).values():
            yield from structs_in(part)
    for part in hint if isinstance(hint, tuple) else get_args(hint):
        yield from structs_in(part)


def schema_text() -> str:
    """The schema as it stands in `docs/result.schema.json`."""
    return msgspec.json.format(msgspec.json.encode(result_schema()), indent=1).decode() + "\n"
