"""The duo backbone: a decoder whose every layer holds a big and a small FFN, and may be skipped."""

from duo.backbone.block import Gate
from duo.backbone.budget import Budget
from duo.backbone.config import BIG, FORMAT, MODULES, SKIP, SMALL, BackboneConfig
from duo.backbone.model import PADDING, Backbone, Run

__all__ = [
    "BIG",
    "FORMAT",
    "MODULES",
    "PADDING",
    "SKIP",
    "SMALL",
    "Backbone",
    "BackboneConfig",
    "Budget",
    "Gate",
    "Run",
]
