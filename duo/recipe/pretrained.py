"""The shape of a backbone that begins as a pretrained model: the model's, as its config.json says."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from duo.backbone import BackboneConfig
from duo.backbone.pretrained import find_json, shape_of_model

OURS = {"small", "skip_scope"}
"""What no model says of a backbone."""
SHAPE = {field.name for field in fields(BackboneConfig)} - OURS
"""What its config.json says."""


def with_shape(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values with the shape of the model that `backbone.pretrained` names; without one, as they are.

    Raises:
        ValueError: there is no such model, duo does not compute what it computes, or a value stands beside it that is
            neither the model's nor the default.
    """
    section = values.get("backbone") or {}
    model = section.get("pretrained")
    if not model:
        return values
    defaults = {field.name: getattr(BackboneConfig(), field.name) for field in fields(BackboneConfig)}
    told = shape_of_model(find_json(model, "config.json"), f"backbone.pretrained={model}")
    shape = {key: told.get(key, defaults[key]) for key in defaults if key in SHAPE}
    for key, value in shape.items():
        # the default too may stand beside it: a recipe over the first defaults, as a run keeps it, says all of them
        if str(section.get(key, value)) not in (str(value), str(defaults[key])):
            raise ValueError(
                f"backbone.{key}={section[key]} stands beside backbone.pretrained={model}, whose config.json says "
                f"{value}: leave it out"
            )
    return values | {"backbone": section | shape}
