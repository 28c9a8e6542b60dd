"""The duo backbone: a decoder whose every layer holds a big and a small FFN, and may be skipped."""

from duo.backbone.block import Gate
from duo.backbone.config import FORMAT, MODULES, BackboneConfig
from duo.backbone.model import PADDING, Backbone, Run

__all__ = ["FORMAT", "MODULES", "PADDING", "Backbone", "BackboneConfig", "Gate", "Run"]
